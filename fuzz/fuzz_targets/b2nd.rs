#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};

use icechest::AnyArray;
use icechest_fuzz::decode;
use libfuzzer_sys::fuzz_target;
use ndarray::{Array2, ArrayD};
use serde_json::Value::Null;

/// A frame of a few bytes may hold any number of zeros, so no size is too large for the reader; here memory ends
/// early, and the reader has to say so.
const LARGEST: usize = 32 << 20;

struct Small;

// SAFETY: as the system's allocator, or null, which stands for "no memory".
unsafe impl GlobalAlloc for Small {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > LARGEST { std::ptr::null_mut() } else { unsafe { System.alloc(layout) } }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() > LARGEST { std::ptr::null_mut() } else { unsafe { System.alloc_zeroed(layout) } }
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > LARGEST { std::ptr::null_mut() } else { unsafe { System.realloc(memory, layout, size) } }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Small = Small;

fuzz_target!(|bytes: &[u8]| {
    decode::<AnyArray>(bytes, "b2nd", Null);
    decode::<ArrayD<bool>>(bytes, "b2nd", Null);
    decode::<Array2<f32>>(bytes, "b2nd", Null);
});
