//! a fake disk and the crash tests on it.
