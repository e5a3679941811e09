//! Typed arguments, validated plans and the commands that drive the stages.
