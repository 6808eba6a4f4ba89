//! The conformance kit on the example's backend.

#[allow(dead_code, reason = "its main runs in the test of the examples")]
#[path = "../examples/own_backend.rs"]
mod own_backend;

use lora_pro_conformance::testing::{Suite, run};

fn main() {
    run(&[Suite::new("plain", || Box::new(own_backend::Plain))]);
}
