//! the etched server's command line: flags, environment, config file, logs.
