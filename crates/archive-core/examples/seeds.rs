//! Writes the seeds of every target to DIRECTORY/TARGET, and prints the targets' names.

fn main() -> std::io::Result<()> {
    let directory = std::env::args().nth(1).ok_or_else(|| std::io::Error::other("usage: seeds DIRECTORY"))?;
    for (target, _) in archive_core::fuzz::TARGETS {
        let corpus = std::path::Path::new(&directory).join(target);
        std::fs::create_dir_all(&corpus)?;
        for (number, seed) in archive_core::fuzz::seeds(target).iter().enumerate() {
            std::fs::write(corpus.join(format!("seed-{number}")), seed)?;
        }
        println!("{target}");
    }
    Ok(())
}
