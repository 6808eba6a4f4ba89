//! Work that is recorded once and launched as a whole, many times.

use std::sync::Arc;

use cudarc::driver::sys::{self, CUgraph, CUgraphExec, CUstream, CUstreamCaptureMode};
use lora_pro_core::Error;

use super::Driver;
use super::context::Context;
use super::failure::check;

/// What was captured.
pub struct Graph {
    raw: CUgraphExec,
    nodes: usize,
    context: Arc<Context>,
}

// SAFETY: a graph may be used from any thread, in its context, though by one at a time: it is not
// `Sync`.
unsafe impl Send for Graph {}

impl Driver {
    /// From here on, what is put into the stream is recorded instead of done. It must not be the
    /// default stream.
    ///
    /// # Errors
    /// [`Error::Backend`] for a stream that cannot be captured.
    pub fn begin_capture(&self, stream: u64) -> Result<(), Error> {
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let _entered = self.context.enter()?;
        // SAFETY: the stream is one of this context.
        let result = unsafe { sys::cuStreamBeginCapture_v2(stream as CUstream, mode) };
        check(result, "starting to capture a graph")
    }

    /// The end of what [`Driver::begin_capture`] began.
    ///
    /// # Errors
    /// [`Error::Backend`] where something was done that cannot be recorded.
    pub fn end_capture(&self, stream: u64) -> Result<Graph, Error> {
        let _entered = self.context.enter()?;
        let mut graph = std::ptr::null_mut();
        // SAFETY: the stream is one of this context; `graph` is there for the call.
        let result = unsafe { sys::cuStreamEndCapture(stream as CUstream, &mut graph) };
        check(result, "capturing a graph")?;
        let done = instantiate(graph);
        // SAFETY: the graph is alive; what was made of it does not need it.
        let _ = unsafe { sys::cuGraphDestroy(graph) };
        let (raw, nodes) = done?;
        Ok(Graph {
            raw,
            nodes,
            context: self.context.clone(),
        })
    }
}

fn instantiate(graph: CUgraph) -> Result<(CUgraphExec, usize), Error> {
    let mut nodes = 0;
    // SAFETY: without memory for them, the nodes are counted alone.
    let result = unsafe { sys::cuGraphGetNodes(graph, std::ptr::null_mut(), &mut nodes) };
    check(result, "counting a graph's nodes")?;
    let mut raw = std::ptr::null_mut();
    // SAFETY: the graph is alive; `raw` is there for the call.
    let result = unsafe { sys::cuGraphInstantiateWithFlags(&mut raw, graph, 0) };
    check(result, "preparing a graph")?;
    Ok((raw, nodes))
}

impl Graph {
    /// How many launches, copies and fills it holds.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// Does all of it, in the order of the stream.
    ///
    /// # Errors
    /// [`Error::Backend`] where the driver refuses.
    ///
    /// # Safety
    /// The driver that captured it is still there, and all memory that was used is still what it was
    /// then.
    pub unsafe fn launch(&self, stream: u64) -> Result<(), Error> {
        let _entered = self.context.enter()?;
        // SAFETY: the caller's promise; the graph is alive.
        let result = unsafe { sys::cuGraphLaunch(self.raw, stream as CUstream) };
        check(result, "launching a graph")
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if let Ok(_entered) = self.context.enter() {
            // SAFETY: the graph is alive, and this was its last handle.
            let _ = unsafe { sys::cuGraphExecDestroy(self.raw) };
        }
    }
}
