//! Follows a recorded group with mls-rs and OpenMLS. The recording is named by
//! the first argument; commands come one by one on standard input, and each is
//! answered by a line of JSON on standard output:
//!
//! - `ENGINE load`: start from the GroupInfo.
//! - `ENGINE follow N`: the next N commits, parsed, verified and applied.
//! - `ENGINE floor N`: only verify the signatures of the N commits before.
//!
//! ENGINE is `mls-rs` or `openmls`. With `--count` as second argument the heap
//! is counted, which costs time.

mod heap;
mod mlsrs;
mod openmls_group;
mod recording;

use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Instant;

use recording::{Recording, Signature};
use serde::Serialize;

#[global_allocator]
static HEAP: heap::Counting = heap::Counting;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A library that follows a group.
trait Engine {
    /// Forgets the group.
    fn clear(&mut self);
    /// Starts from an MLSMessage with a GroupInfo that has its ratchet tree.
    fn load(&mut self, group_info: &[u8]) -> Result<()>;
    /// Parses, verifies and applies an MLSMessage with a commit.
    fn follow(&mut self, commit: &[u8]) -> Result<()>;
    /// Verifies a signature by the library's cryptographic provider.
    fn verify(&self, signature: &Signature) -> Result<()>;
    /// The group after the last message.
    fn state(&self) -> Result<State>;
}

#[derive(Default, Serialize)]
struct State {
    epoch: u64,
    tree_hash: String,
    confirmed_transcript_hash: String,
}

#[derive(Default, Serialize)]
struct Answer {
    nanos: Vec<u128>,
    /// What the loaded group keeps on the heap, if that is counted.
    heap: usize,
    #[serde(flatten)]
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// An engine and how far it has come.
struct Runner {
    name: &'static str,
    engine: Box<dyn Engine>,
    next: usize,
}

impl Runner {
    fn run(&mut self, recording: &Recording, command: &str, n: usize) -> Result<Answer> {
        let mut answer = Answer::default();
        match command {
            "load" => {
                self.engine.clear();
                self.next = 0;
                let before = heap::live();
                answer
                    .nanos
                    .push(timed(|| self.engine.load(&recording.group_info))?);
                answer.heap = heap::live().saturating_sub(before);
            }
            "follow" => {
                for commit in recording.commits.iter().skip(self.next).take(n) {
                    answer
                        .nanos
                        .push(timed(|| self.engine.follow(&commit.message))?);
                    self.next += 1;
                }
            }
            "floor" => {
                let from = self.next.saturating_sub(n);
                for commit in &recording.commits[from..self.next] {
                    answer.nanos.push(timed(|| {
                        commit
                            .signatures
                            .iter()
                            .try_for_each(|s| self.engine.verify(s))
                    })?);
                }
            }
            _ => return Err(format!("command {command:?}").into()),
        }
        answer.state = self.engine.state()?;
        Ok(answer)
    }
}

fn timed(mut work: impl FnMut() -> Result<()>) -> Result<u128> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_nanos())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let path = args.get(1).ok_or("usage: sidebyside RECORDING [--count]")?;
    let recording = recording::read(path)?;
    if args.get(2).is_some_and(|a| a == "--count") {
        heap::count();
    }
    let mut runners = [
        Runner {
            name: "mls-rs",
            engine: Box::new(mlsrs::new()?),
            next: 0,
        },
        Runner {
            name: "openmls",
            engine: Box::new(openmls_group::new()),
            next: 0,
        },
    ];
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let n = words.get(2).map_or(Ok(0), |n| n.parse())?;
        let (name, command) = match words[..] {
            [name, command, ..] => (name, command),
            _ => return Err(format!("command {line:?}").into()),
        };
        let runner = runners
            .iter_mut()
            .find(|r| r.name == name)
            .ok_or("no such engine")?;
        let answer = runner
            .run(&recording, command, n)
            .unwrap_or_else(|e| Answer {
                error: Some(e.to_string()),
                ..Answer::default()
            });
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, &answer)?;
        writeln!(out)?;
        out.flush()?;
    }
    Ok(())
}
