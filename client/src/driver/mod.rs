//! The driver.
use crate::client::Client;
use crate::config::Config;
use crate::error::ConnectError;
use crate::event::Events;

pub(crate) async fn connect(config: Config) -> Result<(Client, Events), ConnectError> {
    config.check()?;
    Err(ConnectError::Config("not built yet".to_owned()))
}
