//! The system allocator with a count of the bytes in use, as the allocator
//! rounds them up.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

static COUNTING: AtomicBool = AtomicBool::new(false);
static LIVE: AtomicUsize = AtomicUsize::new(0);

pub struct Counting;

/// Counts from now on; frees of what came before wrap and cancel out in
/// differences.
pub fn count() {
    COUNTING.store(true, Relaxed);
}

/// The bytes in use, relative to the start of counting.
pub fn live() -> usize {
    LIVE.load(Relaxed)
}

fn note(p: *mut u8, change: fn(&AtomicUsize, usize)) {
    if COUNTING.load(Relaxed) && !p.is_null() {
        // SAFETY: p came from the system allocator and is not freed yet.
        change(&LIVE, unsafe { libc::malloc_usable_size(p.cast()) });
    }
}

fn add(live: &AtomicUsize, n: usize) {
    live.fetch_add(n, Relaxed);
}

fn sub(live: &AtomicUsize, n: usize) {
    live.fetch_sub(n, Relaxed);
}

// SAFETY: every call is passed on to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let p = System.alloc(layout);
        note(p, add);
        p
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        note(p, sub);
        System.dealloc(p, layout)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let p = System.alloc_zeroed(layout);
        note(p, add);
        p
    }

    unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(p, sub);
        let q = System.realloc(p, layout, size);
        note(if q.is_null() { p } else { q }, add);
        q
    }
}
