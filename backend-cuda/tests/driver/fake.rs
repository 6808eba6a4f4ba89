//! A libcuda of no device, for tests of what the backend asks of the real one. Memory is the host's.
//! Work stays in one queue until it is waited for: a copy that is not staged would see what its
//! source became. Everything is counted, and refused where the real one refuses it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard};

const OK: u32 = 0;
const INVALID: u32 = 1;
const OUT_OF_MEMORY: u32 = 2;
const NO_DEVICE: u32 = 100;
const INVALID_IMAGE: u32 = 200;
const INVALID_CONTEXT: u32 = 201;
const UNSUPPORTED_PTX: u32 = 222;
const NOT_FOUND: u32 = 500;
const UNSUPPORTED_IN_CAPTURE: u32 = 900;

const RELAXED: u32 = 2;

/// A number from the environment.
fn number(name: &str, otherwise: i64) -> i64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}

#[derive(Clone)]
enum Work {
    Copy {
        from: u64,
        to: u64,
        bytes: usize,
    },
    Fill {
        at: u64,
        byte: u8,
        bytes: usize,
    },
    /// Writes the launch where its argument says.
    Launch {
        at: u64,
        numbers: [u64; 4],
    },
    Mark,
}

impl Work {
    fn run(&self) {
        match *self {
            Work::Copy { from, to, bytes } => unsafe {
                (to as *mut u8).copy_from(from as *const u8, bytes);
            },
            Work::Fill { at, byte, bytes } => unsafe { (at as *mut u8).write_bytes(byte, bytes) },
            Work::Launch { at, numbers } => unsafe { (at as *mut [u64; 4]).write(numbers) },
            Work::Mark => {}
        }
    }
}

#[derive(Default)]
struct State {
    queue: Vec<Work>,
    /// Work that was ever queued, and where each event is in it.
    queued: u64,
    events: HashMap<u64, u64>,
    captured: Option<(u64, Vec<Work>)>,
    names: Vec<String>,
    /// Bytes of every allocation.
    memory: HashMap<u64, usize>,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);
static NEXT: AtomicU64 = AtomicU64::new(16);
/// Contexts, modules, events, streams, graphs and pinned memory that have not been given back.
static LIVE: AtomicI64 = AtomicI64::new(0);
/// Modules that were ever to be loaded.
static LOADED: AtomicI64 = AtomicI64::new(0);
/// Whether another library captures, and forbids what may disturb it.
static STRICT: AtomicBool = AtomicBool::new(false);

thread_local! {
    static CONTEXTS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    static MODE: Cell<u32> = const { Cell::new(0) };
}

struct Locked(MutexGuard<'static, Option<State>>);

fn state() -> Locked {
    let mut state = STATE.lock().unwrap();
    state.get_or_insert_default();
    Locked(state)
}

impl std::ops::Deref for Locked {
    type Target = State;
    fn deref(&self) -> &State {
        self.0.as_ref().unwrap()
    }
}

impl std::ops::DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut State {
        self.0.as_mut().unwrap()
    }
}

impl State {
    fn push(&mut self, stream: u64, work: Work) -> u32 {
        match &mut self.captured {
            Some((captured, list)) if *captured == stream => list.push(work),
            _ => {
                self.queue.push(work);
                self.queued += 1;
            }
        }
        OK
    }

    /// Does what was queued before a mark.
    fn run_until(&mut self, mark: u64) {
        let done = self.queued - self.queue.len() as u64;
        let count = mark.saturating_sub(done) as usize;
        self.queue.drain(..count).for_each(|work| work.run());
    }

    fn is_captured(&self, stream: u64) -> bool {
        self.captured
            .as_ref()
            .is_some_and(|captured| captured.0 == stream)
    }
}

fn new_handle() -> u64 {
    LIVE.fetch_add(1, SeqCst);
    NEXT.fetch_add(1, SeqCst)
}

fn give_back() -> u32 {
    LIVE.fetch_sub(1, SeqCst);
    OK
}

/// For calls that need a current context.
fn inside(call: impl FnOnce() -> u32) -> u32 {
    match CONTEXTS.with(|contexts| contexts.borrow().is_empty()) {
        true => INVALID_CONTEXT,
        false => call(),
    }
}

/// For calls that a strict capture forbids.
fn harmless(call: impl FnOnce() -> u32) -> u32 {
    if STRICT.load(SeqCst) && MODE.get() != RELAXED {
        return UNSUPPORTED_IN_CAPTURE;
    }
    inside(call)
}

macro_rules! driver {
    ($(fn $name:ident($($argument:ident: $kind:ty),*) $body:block)*) => {
        $(
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $kind),*) -> u32 {
                #[allow(unused_unsafe)]
                unsafe { $body }
            }
        )*
    };
}

driver! {
    fn fake_live() { LIVE.load(SeqCst) as u32 }

    fn fake_contexts() { CONTEXTS.with(|contexts| contexts.borrow().len() as u32) }

    fn fake_strict(on: bool) { STRICT.store(on, SeqCst); OK }

    fn cuInit(_flags: u32) { if number("FAKE_DEVICES", 1) == 0 { NO_DEVICE } else { OK } }

    fn cuGetErrorName(code: u32, text: *mut *const c_char) {
        *text = match code {
            INVALID_IMAGE => c"INVALID_IMAGE",
            UNSUPPORTED_PTX => c"UNSUPPORTED_PTX",
            NOT_FOUND => c"NOT_FOUND",
            UNSUPPORTED_IN_CAPTURE => c"UNSUPPORTED_IN_CAPTURE",
            _ => c"CODE",
        }.as_ptr();
        OK
    }

    fn cuGetErrorString(code: u32, text: *mut *const c_char) {
        if code == INVALID { return INVALID; }
        *text = c"words".as_ptr();
        OK
    }

    fn cuDriverGetVersion(version: *mut c_int) { *version = 12040; OK }

    fn cuDeviceGetCount(count: *mut c_int) { *count = number("FAKE_DEVICES", 1) as c_int; OK }

    fn cuDeviceGet(device: *mut c_int, ordinal: c_int) { *device = ordinal; OK }

    fn cuDeviceGetName(name: *mut c_char, _length: c_int, _device: c_int) {
        name.copy_from(c"Fake".as_ptr(), 5);
        OK
    }

    fn cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) { *bytes = 1 << 30; OK }

    fn cuDeviceGetAttribute(value: *mut c_int, attribute: u32, _device: c_int) {
        let capability = number("FAKE_CAPABILITY", 90) as c_int;
        *value = match attribute {
            75 => capability / 10,
            76 => capability % 10,
            97 => 200 << 10,
            _ => 1,
        };
        OK
    }

    fn cuDevicePrimaryCtxRetain(context: *mut u64, _device: c_int) { *context = new_handle(); OK }

    fn cuDevicePrimaryCtxRelease_v2(_device: c_int) { give_back() }

    fn cuCtxPushCurrent_v2(context: u64) {
        CONTEXTS.with(|contexts| contexts.borrow_mut().push(context));
        OK
    }

    fn cuCtxPopCurrent_v2(context: *mut u64) {
        inside(|| {
            *context = CONTEXTS.with(|contexts| contexts.borrow_mut().pop().unwrap());
            OK
        })
    }

    fn cuThreadExchangeStreamCaptureMode(mode: *mut u32) {
        *mode = MODE.replace(*mode);
        OK
    }

    fn cuModuleLoadDataEx(
        module: *mut u64,
        image: *const u8,
        _count: u32,
        _options: *mut u32,
        values: *mut *mut c_char
    ) {
        harmless(|| {
            let machine = *image == 0x7f;
            if LOADED.fetch_add(1, SeqCst) < number("FAKE_REFUSES", 0) {
                (*values).copy_from(c"ptxas: no such version\n".as_ptr(), 24);
                return if machine { INVALID_IMAGE } else { UNSUPPORTED_PTX };
            }
            *module = new_handle();
            OK
        })
    }

    fn cuModuleUnload(_module: u64) { harmless(give_back) }

    fn cuModuleGetFunction(function: *mut u64, _module: u64, name: *const c_char) {
        inside(|| {
            let mut state = state();
            state.names.push(CStr::from_ptr(name).to_str().unwrap().into());
            *function = state.names.len() as u64;
            OK
        })
    }

    fn cuFuncSetAttribute(_function: u64, attribute: u32, value: c_int) {
        inside(|| if attribute == 8 && value == 200 << 10 { OK } else { INVALID })
    }

    fn cuMemAlloc_v2(at: *mut u64, bytes: usize) {
        harmless(|| {
            let mut state = state();
            let used: usize = state.memory.values().sum();
            if used + bytes > number("FAKE_MEMORY", 1 << 30) as usize {
                return OUT_OF_MEMORY;
            }
            *at = Box::leak(vec![0xaau8; bytes].into_boxed_slice()).as_mut_ptr() as u64;
            state.memory.insert(*at, bytes);
            new_handle();
            OK
        })
    }

    fn cuMemFree_v2(at: u64) {
        harmless(|| {
            let mut state = state();
            let queued = state.queued;
            state.run_until(queued);
            match state.memory.remove(&at) {
                Some(_) => give_back(),
                None => INVALID,
            }
        })
    }

    fn cuMemHostAlloc(at: *mut *mut c_void, bytes: usize, _flags: u32) {
        harmless(|| {
            *at = Box::leak(vec![0u8; bytes].into_boxed_slice()).as_mut_ptr().cast();
            new_handle();
            OK
        })
    }

    fn cuMemFreeHost(_at: *mut c_void) { harmless(give_back) }

    fn cuMemsetD8Async(at: u64, byte: u8, bytes: usize, stream: u64) {
        inside(|| state().push(stream, Work::Fill { at, byte, bytes }))
    }

    fn cuMemcpyHtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: u64) {
        inside(|| state().push(stream, Work::Copy { from, to, bytes }))
    }

    fn cuMemcpyDtoHAsync_v2(to: u64, from: u64, bytes: usize, stream: u64) {
        inside(|| state().push(stream, Work::Copy { from, to, bytes }))
    }

    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: u64) {
        inside(|| state().push(stream, Work::Copy { from, to, bytes }))
    }

    fn cuLaunchKernel(
        function: u64,
        grid: u32,
        _grid_y: u32,
        _grid_z: u32,
        block: u32,
        _block_y: u32,
        _block_z: u32,
        shared: u32,
        stream: u64,
        arguments: *mut *mut u64,
        _extra: *mut c_void
    ) {
        inside(|| {
            if shared > 200 << 10 {
                return INVALID;
            }
            let at = **arguments;
            let numbers = [function, grid.into(), block.into(), shared.into()];
            state().push(stream, Work::Launch { at, numbers })
        })
    }

    fn cuStreamCreate(stream: *mut u64, _flags: u32) { inside(|| { *stream = new_handle(); OK }) }

    fn cuStreamDestroy_v2(_stream: u64) { inside(give_back) }

    fn cuStreamSynchronize(stream: u64) {
        harmless(|| {
            let mut state = state();
            if state.is_captured(stream) {
                return UNSUPPORTED_IN_CAPTURE;
            }
            let queued = state.queued;
            state.run_until(queued);
            OK
        })
    }

    fn cuStreamIsCapturing(stream: u64, status: *mut u32) {
        inside(|| {
            *status = state().is_captured(stream).into();
            OK
        })
    }

    fn cuStreamBeginCapture_v2(stream: u64, _mode: u32) {
        inside(|| {
            if stream == 0 {
                return UNSUPPORTED_IN_CAPTURE;
            }
            state().captured = Some((stream, Vec::new()));
            OK
        })
    }

    fn cuStreamEndCapture(_stream: u64, graph: *mut *mut Vec<Work>) {
        inside(|| {
            let Some((_, list)) = state().captured.take() else {
                return INVALID;
            };
            *graph = Box::into_raw(Box::new(list));
            new_handle();
            OK
        })
    }

    fn cuGraphGetNodes(graph: *mut Vec<Work>, _nodes: *mut u64, count: *mut usize) {
        *count = (*graph).len();
        OK
    }

    fn cuGraphInstantiateWithFlags(
        executable: *mut *mut Vec<Work>,
        graph: *mut Vec<Work>,
        _flags: u64
    ) {
        inside(|| {
            *executable = Box::into_raw(Box::new((*graph).clone()));
            new_handle();
            OK
        })
    }

    fn cuGraphDestroy(graph: *mut Vec<Work>) {
        drop(Box::from_raw(graph));
        give_back()
    }

    fn cuGraphExecDestroy(graph: *mut Vec<Work>) {
        drop(Box::from_raw(graph));
        give_back()
    }

    fn cuEventCreate(event: *mut u64, _flags: u32) { inside(|| { *event = new_handle(); OK }) }

    fn cuEventDestroy_v2(_event: u64) { inside(give_back) }

    fn cuEventRecord(event: u64, stream: u64) {
        inside(|| {
            let mut state = state();
            state.push(stream, Work::Mark);
            let queued = state.queued;
            state.events.insert(event, queued);
            OK
        })
    }

    fn cuEventSynchronize(event: u64) {
        harmless(|| {
            let mut state = state();
            let mark = state.events.get(&event).copied().unwrap_or(0);
            state.run_until(mark);
            OK
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime(milliseconds: *mut f32, _: u64, _: u64) -> u32 {
    unsafe { *milliseconds = 1.5 };
    OK
}

/// What an `old` driver lacks.
#[cfg(not(old))]
driver! {
    fn cuGraphLaunch(graph: *mut Vec<Work>, stream: u64) {
        inside(|| {
            for work in &*graph {
                state().push(stream, work.clone());
            }
            OK
        })
    }
}
