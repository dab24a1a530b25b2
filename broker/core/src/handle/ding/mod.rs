//! DINGs are made, confirmed, recalled and asked about; what is due fires.

mod act;
mod calls;
mod create;
mod outlet;
mod status;

use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::DingId;

use crate::ding::Ding;
use crate::error::Refusal;
use crate::input::Principal;
use crate::shard::Shard;

const NOT_FOUND: Refusal = Refusal::new(ErrorCode::NOT_FOUND, "no such DING, or not for you: it may be forgotten");

impl Shard {
    fn ding_of(&self, who: Principal, id: DingId) -> Result<&Ding, Refusal> {
        self.dings.by_id.get(&id).filter(|ding| ding.tenant == who.tenant).ok_or(NOT_FOUND)
    }

    /// A DING that the principal sent, or may look after.
    fn sent_ding(&self, who: Principal, id: DingId) -> Result<&Ding, Refusal> {
        let ding = self.ding_of(who, id)?;
        let may = ding.sender == who.user || who.authority.manages_tenant();
        if may { Ok(ding) } else { Err(NOT_FOUND) }
    }
}
