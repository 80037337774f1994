//! The command line as its users meet it: the real program, in a folder of its own, against real
//! servers. Exit codes, the two streams, and that nothing is lost.

mod abp_saas;
mod bundle;
mod connecting;
mod connection;
mod docs;
mod errors;
mod event_streaming;
mod events;
mod files;
mod follow;
mod isolation;
mod local;
mod manifest;
mod modules;
mod output;
mod pooler;
mod program;
mod races;
mod repair;
mod rollout;
mod run_services;
mod support;
mod tenant;
mod tenant_move;
mod tenant_service;
mod verbs;
