//! What ends a broker.

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use super::*;
use crate::journal::EndOnPanic;

/// Set in a process that is to panic: how.
const HOW: &str = "CARILLON_TEST_PANICS";

#[test]
fn a_panic_of_a_thread_ends_the_process() {
    match env::var(HOW).as_deref() {
        Ok("spawned") => join(spawn("of the broker".into(), || panic!("as told")).unwrap()),
        Ok("guarded") => {
            let guarded = thread::spawn(|| {
                let _guard = EndOnPanic;
                panic!("as told");
            });
            drop(guarded.join());
        }
        _ => {
            for how in ["spawned", "guarded"] {
                let mut itself = Command::new(env::current_exe().unwrap());
                itself.args(["--exact", "server::tests::a_panic_of_a_thread_ends_the_process"]).env(HOW, how);
                let output = itself.output().unwrap();
                let sigabrt = rustix::process::Signal::ABORT.as_raw();
                assert_eq!(output.status.signal(), Some(sigabrt), "{how}: {output:?}");
            }
        }
    }
}
