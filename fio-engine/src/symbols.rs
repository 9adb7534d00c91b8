//! What fio defines, for the program of this crate's own tests, which runs without fio and calls none of it.
#![allow(non_upper_case_globals, reason = "fio's names")]

macro_rules! absent {
    ($($name:ident)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name() {
            panic!(concat!(stringify!($name), " is only there inside fio"));
        }
    )*};
}

absent! { log_err log_info fio_gettime io_u_queued fill_io_buffer get_start_offset get_rand_file_size }

#[unsafe(no_mangle)]
static read_only: bool = false;
