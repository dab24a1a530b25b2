//! Acknowledgements on disk: what is not in the file is not noted, so that a checker that is killed too claims nothing that it
//! cannot prove.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use carillon_client::Published;
use tokio::sync::{mpsc, oneshot, watch};

use super::ledger::{Findings, Ledger, Noted};
use super::payload::Sent;

/// Acknowledgements that wait to be written. A full queue makes the producers wait.
const QUEUE: usize = 8_192;

/// Written before one `fdatasync`, at most.
const AT_ONCE: usize = 4_096;

/// The ledger and what was found wrong with it while it was written.
#[derive(Default)]
pub struct Book {
    /// What was noted.
    pub ledger: Ledger,
    /// What contradicts itself.
    pub findings: Findings,
}

enum Note {
    Published(Sent, Published),
    /// Everything before this is to be on disk.
    Flush(oneshot::Sender<()>),
}

/// Where acknowledgements are handed in. A clone is the same desk.
#[derive(Clone)]
pub struct Desk {
    notes: mpsc::Sender<Note>,
    book: Arc<Mutex<Book>>,
    counted: watch::Receiver<u64>,
}

/// The thread that writes. It ends when all desks are dropped.
pub struct Writer(JoinHandle<io::Result<()>>);

impl Writer {
    /// Waits for the end.
    ///
    /// # Errors
    /// The file could not be written: what was noted since is worth nothing.
    pub fn join(self) -> io::Result<()> {
        self.0.join().unwrap_or_else(|_| Err(io::Error::other("the thread that notes panicked")))
    }
}

/// Begins a file of notes.
///
/// # Errors
/// It cannot be made.
pub fn begin(path: &Path) -> io::Result<(Desk, Writer)> {
    let file = File::create(path)?;
    let (notes, queue) = mpsc::channel(QUEUE);
    let (count, counted) = watch::channel(0);
    let book = Arc::new(Mutex::new(Book::default()));
    let desk = Desk { notes, book: book.clone(), counted };
    let thread = std::thread::Builder::new().name("notes".into());
    let writer = thread.spawn(move || write(file, queue, &book, &count))?;
    Ok((desk, Writer(writer)))
}

fn write(
    mut file: File,
    mut queue: mpsc::Receiver<Note>,
    book: &Mutex<Book>,
    count: &watch::Sender<u64>,
) -> io::Result<()> {
    let (mut batch, mut text) = (Vec::new(), String::new());
    while queue.blocking_recv_many(&mut batch, AT_ONCE) > 0 {
        text.clear();
        for note in &batch {
            if let Note::Published(Sent { producer, ordinal }, published) = note {
                let Published { number, conversation, seq, position, .. } = published;
                writeln!(text, "{producer} {ordinal} {number} {conversation} {seq} {position}")
                    .map_err(io::Error::other)?;
            }
        }
        if !text.is_empty() {
            file.write_all(text.as_bytes())?;
            file.sync_data()?;
        }
        let book = &mut *book.lock().unwrap_or_else(PoisonError::into_inner);
        for note in batch.drain(..) {
            match note {
                Note::Published(sent, published) => {
                    book.ledger.repeated += u64::from(published.repeated > 0);
                    let noted = Noted { sent, position: published.position };
                    book.ledger.note((published.conversation, published.seq), noted, &mut book.findings);
                }
                Note::Flush(done) => {
                    // Before the answer: who was answered may look at the count.
                    count.send_replace(book.ledger.count);
                    // Who does not wait any longer does not need to know.
                    let _ = done.send(());
                }
            }
        }
        count.send_replace(book.ledger.count);
    }
    Ok(())
}

impl Desk {
    /// Hands in an acknowledgement.
    ///
    /// # Panics
    /// If the thread that notes has ended, because the file could not be written.
    pub async fn note(&self, sent: Sent, published: Published) {
        assert!(self.notes.send(Note::Published(sent, published)).await.is_ok(), "acknowledgements can be noted");
    }

    /// Waits until everything that was handed in is on disk.
    ///
    /// # Panics
    /// As [`Desk::note`].
    pub async fn flush(&self) {
        let (done, is_done) = oneshot::channel();
        assert!(self.notes.send(Note::Flush(done)).await.is_ok(), "acknowledgements can be noted");
        is_done.await.expect("acknowledgements can be noted");
    }

    /// The count of acknowledged messages, as it grows.
    pub fn counted(&self) -> watch::Receiver<u64> {
        self.counted.clone()
    }

    /// What was noted.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use carillon_client::{ConversationId, Position, Seq, Timestamp};

    use super::*;

    #[tokio::test]
    async fn what_is_flushed_is_in_the_file_and_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("acknowledged");
        let (desk, writer) = begin(&path).unwrap();
        for number in 1..=3 {
            let published = Published {
                number,
                conversation: ConversationId(4),
                seq: Seq(number),
                position: Position(10 + number),
                time: Timestamp(1),
                repeated: u8::from(number == 2),
            };
            desk.note(Sent { producer: 2, ordinal: u32::try_from(number).unwrap() }, published).await;
            desk.flush().await;
            assert_eq!(*desk.counted().borrow(), number);
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().next_back().unwrap(), "2 3 3 4 3 13");
        let book = desk.book();
        assert_eq!((book.ledger.count, book.ledger.repeated), (3, 1));
        drop(book);
        drop(desk);
        writer.join().unwrap();
    }
}
