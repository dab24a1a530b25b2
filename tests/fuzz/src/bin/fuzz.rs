//! One target under libFuzzer: `CARILLON_FUZZ=<target>` names it. Started by `run.sh`.

#![no_main]

use std::sync::OnceLock;

use carillon_fuzz::Target;
use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<&Target> = OnceLock::new();

fn choose() {
    let name = std::env::var("CARILLON_FUZZ").expect("CARILLON_FUZZ names the target");
    let target = carillon_fuzz::target(&name).unwrap_or_else(|| panic!("there is no target {name}"));
    TARGET.set(target).expect("it is chosen once");
}

fuzz_target!(
    init: choose(),
    |input: &[u8]| {
        let target = TARGET.get().expect("it was chosen at the start");
        if input.len() <= target.input_bytes_max {
            carillon_fuzz::check(target, input);
        }
    }
);
