//! The first serial port, and the port that ends the machine with a status.

use core::arch::asm;
use core::fmt::{self, Write};

/// What the machine ends with: `value << 1 | 1` is the monitor's exit status (isa-debug-exit at port 0xf4).
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Exit {
    /// Everything held (status 33).
    Success = 0x10,
    /// No module to mount was given (status 65).
    NoImage = 0x20,
    /// A check failed (status 231).
    Failed = 0x73,
    /// A panic (status 255).
    Panic = 0x7f,
}

/// Ends the machine.
pub fn exit(code: Exit) -> ! {
    // SAFETY: a port write touches no memory; port 0xf4 is the monitor's exit device or nothing.
    unsafe { asm!("out dx, eax", in("dx") 0xf4u16, in("eax") code as u32, options(nomem, nostack)) };
    loop {
        // SAFETY: halting touches no memory; with interrupts off it is the end.
        unsafe { asm!("hlt", options(nomem, nostack)) };
    }
}

/// Writes to the first serial port, as it stands after reset.
pub struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: a port write touches no memory; 0x3f8 is the data register of the first serial port.
            unsafe { asm!("out dx, al", in("dx") 0x3f8u16, in("al") byte, options(nomem, nostack)) };
        }
        Ok(())
    }
}

/// Prints one line.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => {{
        use core::fmt::Write;
        // The port cannot fail.
        let _ = writeln!($crate::console::Serial, $($arg)*);
    }};
}
