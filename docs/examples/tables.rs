//! Prints the tables of the chapter on numerics, to be pasted where a test asks for it.

use lora_pro_docs::second_step::{by_method, by_rate, with_warm_up};

fn main() -> Result<(), lora_pro_core::Error> {
    println!("{}\n{}\n{}", by_rate()?, by_method()?, with_warm_up()?);
    Ok(())
}
