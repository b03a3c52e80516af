//! The threads that carry sessions. Each has a reactor of its own, so that whatever comes for a session, from
//! either side, wakes the one thread that passes it on: handing it from thread to thread costs more than TLS.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};

/// More would take the cores from the computes.
const MOST: usize = 8;

static LANES: LazyLock<Vec<Handle>> = LazyLock::new(|| {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    (0..cores.min(MOST)).map(open).collect()
});

/// Returns the lane for the next connection, in turn.
pub(super) fn next() -> &'static Handle {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let lanes = &*LANES;
    &lanes[TURN.fetch_add(1, Ordering::Relaxed) % lanes.len()]
}

fn open(number: usize) -> Handle {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the system has room for a few reactors");
    let handle = runtime.handle().clone();
    thread::Builder::new()
        .name(format!("sessions-{number}"))
        .spawn(move || runtime.block_on(std::future::pending::<()>()))
        .expect("the system has room for a few threads");
    handle
}
