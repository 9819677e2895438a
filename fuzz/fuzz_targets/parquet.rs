#![no_main]

use arrow_array::RecordBatch;
use icechest_fuzz::decode;
use libfuzzer_sys::fuzz_target;
use serde_json::Value::Null;

fuzz_target!(
    // A panic of the library that is caught is an error as others are; one that is not still ends the run.
    init: std::panic::set_hook(Box::new(|_| {})),
    |bytes: &[u8]| {
        for batch in decode::<Vec<RecordBatch>>(bytes, "parquet", Null).unwrap_or_default() {
            // Reads every element: a wrong offset would show.
            let _ = format!("{:?}", batch.slice(0, batch.num_rows().min(16)));
        }
    }
);
