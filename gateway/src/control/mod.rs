//! The operator's plane: command line, configuration, logging, shutdown.
