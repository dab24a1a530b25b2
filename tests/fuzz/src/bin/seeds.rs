//! Writes the seeds of every target's corpus: `cargo run -p carillon-fuzz --bin seeds`. After a format has changed.

use std::fs;
use std::path::Path;

fn main() -> std::io::Result<()> {
    for target in carillon_fuzz::TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
        fs::create_dir_all(&directory)?;
        for (nth, seed) in (target.seeds)().iter().enumerate() {
            fs::write(directory.join(format!("seed-{nth:02}")), seed)?;
        }
    }
    Ok(())
}
