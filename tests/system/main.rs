//! System tests.
mod simulation;
