//! Transports over real brokers.

mod nats;
mod postgres;
mod rabbitmq;
mod scenarios;
mod support;
