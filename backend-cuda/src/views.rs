//! Borrowed device memory as host values: for errors that name an entry, and for nothing else.

use lora_pro_core::{Error, HostTensor, MatRef};

use crate::device::Device;

/// A copy on the host, after all work on the stream.
///
/// What lies between the view's elements is read along and thrown away.
pub(crate) fn to_host(
    device: &dyn Device,
    stream: u64,
    view: &MatRef<'_>,
) -> Result<HostTensor, Error> {
    let ([rows, cols], strides, size) = (view.shape(), view.strides(), view.dtype().size());
    let span = |k: usize, count: usize| strides[k] * (count as isize - 1);
    let ends = [span(0, rows), span(1, cols)];
    let low: isize = ends.iter().map(|end| (*end).min(0)).sum();
    let high: isize = ends.iter().map(|end| (*end).max(0)).sum();
    let mut bytes = vec![0; (high - low + 1) as usize * size];
    let start = view.as_ptr().wrapping_offset(low * size as isize) as u64;
    // SAFETY: from the first to the last element of the view, which lies in one allocation.
    unsafe { device.read(stream, start, &mut bytes)? };
    let mut packed = Vec::with_capacity(rows * cols * size);
    for i in 0..rows as isize {
        for j in 0..cols as isize {
            let at = (i * strides[0] + j * strides[1] - low) as usize * size;
            packed.extend_from_slice(&bytes[at..at + size]);
        }
    }
    // One element was pushed for each index adapter.
    Ok(HostTensor::from_bytes(view.dtype(), view.shape(), packed)
        .unwrap_or_else(|| HostTensor::zeros(view.dtype(), view.shape())))
}
