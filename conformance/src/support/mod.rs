//! What tests of backends use beside the suite: adapters that are stepped together, tensors in any
//! layout, and checks of what only some backends do.
//!
//! | module | what |
//! |---|---|
//! | [`batch`] | several adapters with their gradients, and all they consist of as bits |
//! | [`layout`] | tensors as other libraries might have them in memory |
//! | [`stress_cases`] | random cases of any condition, with any options |
//! | [`quantized_moments`], [`rounding`] | 8-bit moments; how updates reach 16-bit parameters |

pub mod batch;
pub mod layout;
pub mod quantized_moments;
pub mod rounding;
pub mod stress_cases;
