//! The example learns, and goes on to the last bit.

// The example's own `main` is not called.
#[allow(dead_code)]
#[path = "../examples/own_model.rs"]
mod own_model;

use lora_pro_candle::PeftAdapter;
use own_model::train;

#[test]
fn it_learns_and_resumes_to_the_last_bit() {
    let [one, two] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (one, two) = (one.path().to_str().unwrap(), two.path().to_str().unwrap());
    let start = train(one, 0).unwrap();
    let straight = train(one, 200).unwrap();
    assert!(straight < 0.1 * start, "{start} to {straight}");
    // Interrupted between two checkpoints: goes back to step 100.
    train(two, 130).unwrap();
    assert_eq!(train(two, 200).unwrap(), straight);
    let modules: Vec<String> = PeftAdapter::load(one)
        .unwrap()
        .modules()
        .map(Into::into)
        .collect();
    assert_eq!(modules, ["layers.0", "layers.1"]);
}
