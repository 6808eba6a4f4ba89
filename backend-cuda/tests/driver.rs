//! The device of the driver, on machines without one: alone, and against a libcuda of no device that
//! is compiled here and found by a second run of this program.

#![cfg(target_os = "linux")]

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::thread;

use cudarc::driver::sys;
use lora_pro_core::Error;
use lora_pro_cuda::device::{Device, Launch};
use lora_pro_cuda::driver::Driver;

/// A kernel that there is: the first of the table.
fn kernel() -> &'static str {
    let table = include_str!("../kernels/resources.txt").lines();
    let mut lines = table.filter(|line| !line.starts_with('#'));
    lines.next().unwrap().split(' ').next().unwrap()
}

fn reason<T>(result: Result<T, lora_pro_core::Error>) -> String {
    result.err().unwrap().to_string()
}

#[test]
fn without_a_driver_there_is_an_error() {
    // SAFETY: opening the driver's library runs no code but its own.
    if unsafe { sys::is_culib_present() } {
        return;
    }
    let words = "the cuda backend: no NVIDIA driver (libcuda) on this machine";
    assert_eq!(reason(Driver::count()), words);
    let threads = [0, 1, 7].map(|ordinal| thread::spawn(move || reason(Driver::new(ordinal))));
    for thread in threads {
        assert_eq!(thread.join().unwrap(), words);
    }
}

/// Runs one of the tests in [`inside`] with the fake driver, set up as told.
fn with_fake(test: &str, settings: &[(&str, &str)]) {
    let old = settings.iter().any(|setting| setting.0 == "FAKE_IS_OLD");
    let mut libraries = fake(old).clone().into_os_string();
    if let Some(others) = env::var_os("LD_LIBRARY_PATH") {
        libraries.push(":");
        libraries.push(others);
    }
    let output = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", &format!("inside::{test}")])
        .env("LD_LIBRARY_PATH", libraries)
        .env("FAKE_DRIVER", "1")
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The folder with the fake driver, or with one that lacks a function.
fn fake(old: bool) -> &'static PathBuf {
    static FOLDERS: [OnceLock<PathBuf>; 2] = [OnceLock::new(), OnceLock::new()];
    FOLDERS[usize::from(old)].get_or_init(|| {
        let name = if old { "old" } else { "new" };
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let status = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .args([
                "--edition=2024",
                "--crate-type=cdylib",
                "-Cpanic=abort",
                "-Awarnings",
            ])
            .args(["--cfg", name, "-o"])
            .arg(folder.join("libcuda.so"))
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/driver/fake.rs"))
            .status();
        assert!(status.unwrap().success());
        folder
    })
}

macro_rules! with_fake {
    ($($name:ident($($variable:literal = $value:literal),*);)*) => {
        $(
            #[test]
            fn $name() {
                with_fake(stringify!($name), &[$(($variable, $value)),*]);
            }
        )*
    };
}

with_fake! {
    opens_and_closes();
    no_device("FAKE_DEVICES" = "0");
    two_devices("FAKE_DEVICES" = "2");
    too_old_a_driver("FAKE_IS_OLD" = "1");
    too_old_a_device("FAKE_CAPABILITY" = "75");
    newer_device("FAKE_CAPABILITY" = "120");
    refused_machine_code("FAKE_REFUSES" = "1");
    refused_images("FAKE_REFUSES" = "2");
    memory("FAKE_MEMORY" = "1000000");
    sources_of_writes_are_free();
    launches();
    captures();
    others_capture();
    times();
}

/// Inside of the fake driver: started by the tests above.
mod inside {
    use super::*;

    /// A function of the fake driver's own.
    fn ask(name: &str, argument: bool) -> u32 {
        // SAFETY: all of them are of this type, or take nothing.
        unsafe {
            let library = sys::culib();
            let function = library.get::<unsafe extern "C" fn(bool) -> u32>(name.as_bytes());
            function.unwrap()(argument)
        }
    }

    fn read<const N: usize>(driver: &Driver, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        // SAFETY: the callers allocated as much.
        unsafe { driver.read(0, at, &mut bytes) }.unwrap();
        bytes
    }

    macro_rules! tests {
        ($($name:ident $body:block)*) => {
            $(
                #[test]
                #[ignore = "needs the fake driver"]
                fn $name() {
                    if env::var_os("FAKE_DRIVER").is_none() {
                        return;
                    }
                    $body
                    assert_eq!(ask("fake_contexts", false), 0, "the thread is as it was");
                    assert_eq!(ask("fake_live", false), 0, "everything is given back");
                }
            )*
        };
    }

    tests! {
        opens_and_closes {
            let driver = Driver::new(0).unwrap();
            let about = driver.info();
            assert_eq!((&about.name[..], about.ordinal), ("Fake", 0));
            assert_eq!(about.code, "cubin sm_90");
            let facts = driver.facts().unwrap();
            assert!(facts.contains(&("compute capability", "9.0".into())));
            assert!(facts.contains(&("driver", "CUDA 12.4".into())));
            assert!(thread::spawn(|| Driver::new(0).is_ok()).join().unwrap());
        }

        no_device {
            let words = "the cuda backend: no CUDA device on this machine, or none that \
                         CUDA_VISIBLE_DEVICES leaves";
            assert_eq!(reason(Driver::count()), words);
            assert_eq!(reason(Driver::new(0)), words);
        }

        two_devices {
            assert_eq!(Driver::count().unwrap(), 2);
            assert_eq!(Driver::new(1).unwrap().info().ordinal, 1);
            for ordinal in [2, usize::MAX] {
                let error = reason(Driver::new(ordinal));
                let words = format!("no device {ordinal}: this machine has 2, numbered 0 to 1");
                assert!(error.ends_with(&words), "{error}");
            }
        }

        too_old_a_driver {
            let error = reason(Driver::new(0));
            assert!(error.contains("too old: its library has no cuGraphLaunch"), "{error}");
        }

        too_old_a_device {
            let error = reason(Driver::new(0));
            assert!(error.contains("capability 7.5, but the kernels need 8.0"), "{error}");
        }

        newer_device {
            assert_eq!(Driver::new(0).unwrap().info().code, "PTX compute_80");
        }

        refused_machine_code {
            assert_eq!(Driver::new(0).unwrap().info().code, "PTX compute_80");
        }

        refused_images {
            let opened = Driver::new(0);
            // SAFETY: opening the compiler's library runs no code but its own.
            if unsafe { cudarc::nvrtc::sys::is_culib_present() } {
                assert!(opened.unwrap().info().code.starts_with("NVRTC "));
            } else {
                let error = reason(opened);
                for words in [
                    "no code for device 0 can be loaded; the driver knows CUDA 12.4",
                    "\n  cubin sm_90: words (INVALID_IMAGE)",
                    "\n  PTX compute_80: words (UNSUPPORTED_PTX)\n  ptxas: no such version",
                    "\n  NVRTC: there is no libnvrtc",
                ] {
                    assert!(error.contains(words), "{error}");
                }
            }
        }

        memory {
            let driver = Driver::new(0).unwrap();
            match driver.allocate(2_000_000) {
                Err(Error::OutOfMemory { reason, .. }) => {
                    assert!(reason.contains("2000000 bytes of memory of device 0"), "{reason}");
                }
                other => panic!("{other:?}"),
            }
            let at = [8, 8, 0].map(|bytes| driver.allocate(bytes).unwrap());
            // SAFETY: all ranges are of what was allocated, and given back once.
            unsafe {
                driver.fill(0, at[0], 7, 8).unwrap();
                driver.write(0, at[0], &[1, 2]).unwrap();
                driver.copy(0, at[0], at[1], 8).unwrap();
                for nothing in [driver.fill(0, 0, 1, 0), driver.copy(0, 0, 0, 0)] {
                    nothing.unwrap();
                }
                driver.write(0, 0, &[]).unwrap();
                driver.read(0, 0, &mut []).unwrap();
                assert_eq!(read(&driver, at[1]), [1, 2, 7, 7, 7, 7, 7, 7]);
                at.into_iter().for_each(|at| driver.free(at, 8));
            }
        }

        sources_of_writes_are_free {
            // More than the ring, in pieces that do not fill it evenly.
            const LENGTH: usize = 300_000;
            let driver = Driver::new(0).unwrap();
            let places = [(); 20].map(|()| driver.allocate(LENGTH).unwrap());
            let content = |i: usize| (0..LENGTH).map(move |j| (i * 31 + j * 7 + j / 251) as u8);
            for (i, at) in places.iter().enumerate() {
                let mut bytes: Vec<u8> = content(i).collect();
                // SAFETY: as many bytes were allocated.
                unsafe { driver.write(0, *at, &bytes) }.unwrap();
                bytes.fill(0);
            }
            for (i, at) in places.into_iter().enumerate() {
                assert!(read::<LENGTH>(&driver, at).into_iter().eq(content(i)), "{i}");
                // SAFETY: given back once.
                unsafe { driver.free(at, LENGTH) };
            }
        }

        launches {
            let driver = Driver::new(0).unwrap();
            let at = driver.allocate(32).unwrap();
            let launch = |kernel, grid, shared| {
                let argument = Launch { model: at, ..Launch::default() };
                // SAFETY: the fake kernel writes 32 bytes.
                unsafe { driver.launch(0, kernel, grid, shared, &argument) }
            };
            launch(kernel(), 0, 0).unwrap();
            launch(kernel(), 5, 100 << 10).unwrap();
            let numbers = read::<32>(&driver, at);
            let numbers = [8, 16, 24].map(|i| numbers[i]);
            assert_eq!(numbers, [5, 0, 0], "the grid, and the low bytes of 256 and of 100 KiB");
            let error = reason(launch("nothing", 1, 0));
            assert!(error.ends_with("there is no kernel `nothing`"), "{error}");
            let error = reason(launch(kernel(), 3, 300 << 10));
            let words = format!("launching 3 blocks of `{}` with 307200 bytes", kernel());
            assert!(error.contains(&words) && error.contains("code 1"), "{error}");
            // SAFETY: given back once.
            unsafe { driver.free(at, 32) };
        }

        captures {
            let driver = Driver::new(0).unwrap();
            let stream = driver.stream().unwrap();
            let raw = stream.raw();
            let at = driver.allocate(4).unwrap();
            assert!(reason(driver.begin_capture(0)).contains("starting to capture"));
            driver.begin_capture(raw).unwrap();
            assert!(driver.is_capturing(raw).unwrap());
            assert!(!driver.is_capturing(0).unwrap() && !driver.is_capturing(1).unwrap());
            // SAFETY: four bytes were allocated, and stay while the graph is used.
            let graph = unsafe {
                assert!(reason(driver.write(raw, at, &[1])).contains("while a graph is captured"));
                assert!(reason(driver.read(raw, at, &mut [1])).contains("while a graph"));
                driver.fill(raw, at, 9, 4).unwrap();
                driver.fill(raw, at, 8, 2).unwrap();
                assert!(reason(driver.synchronize(raw)).contains("waiting for a stream while"));
                let graph = driver.end_capture(raw).unwrap();
                assert!(!driver.is_capturing(raw).unwrap());
                assert_eq!(read(&driver, at), [0xaa; 4], "nothing was done");
                graph.launch(raw).unwrap();
                graph
            };
            assert_eq!(graph.nodes(), 2);
            assert_eq!(read(&driver, at), [8, 8, 9, 9]);
            assert!(driver.end_capture(raw).is_err());
            // SAFETY: given back once.
            unsafe { driver.free(at, 4) };
        }

        others_capture {
            ask("fake_strict", true);
            let driver = Driver::new(0).unwrap();
            let at = driver.allocate(100_000).unwrap();
            // SAFETY: as much was allocated, and is given back once.
            unsafe {
                driver.write(0, at, &[3; 100_000]).unwrap();
                assert_eq!(read(&driver, at), [3; 100_000]);
                driver.free(at, 100_000);
            }
        }

        times {
            let driver = Driver::new(0).unwrap();
            let elapsed = driver.time(0, || Ok(())).unwrap();
            assert!(elapsed.by_device);
            assert_eq!(elapsed.milliseconds, 1.5);
            let error = driver.time(0, || driver.begin_capture(0));
            assert!(error.is_err());
        }
    }
}
