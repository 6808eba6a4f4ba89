//! Device memory that grows with the set of adapters, or with what is registered.

use std::sync::Arc;

use lora_pro_core::Error;

use crate::device::Device;
use crate::memory::Block;

/// One block for each use.
#[derive(Default)]
pub(super) struct Blocks {
    /// The model, and what concerns the whole step. A dial may keep it.
    pub(super) head: Option<Arc<Block>>,
    /// Status and reports of everything registered: what is read after a step.
    pub(super) board: Option<Block>,
    /// Adapters and parameters.
    pub(super) descriptors: Option<Block>,
    pub(super) tasks: Option<Block>,
    /// Of everything registered.
    pub(super) counters: Option<Block>,
    pub(super) scratch: Option<Block>,
}

/// Makes sure that a block has so many bytes.
pub(super) fn reserve(
    device: &Arc<dyn Device>,
    block: &mut Option<Block>,
    bytes: usize,
) -> Result<(), Error> {
    if block.as_ref().is_some_and(|block| block.bytes() >= bytes) {
        return Ok(());
    }
    // The old one first: both might not fit.
    *block = None;
    *block = Some(Block::zeros(device, bytes.next_multiple_of(256))?);
    Ok(())
}

/// Address of a block that may not be there.
pub(super) fn at(block: &Option<Block>) -> u64 {
    block.as_ref().map_or(0, Block::at)
}

/// The same of the head.
pub(super) fn head(blocks: &Blocks) -> u64 {
    blocks.head.as_ref().map_or(0, |block| block.at())
}
