//! A small world in which decisions are carried out: it keeps versions as the API server does, evicts as it does, and
//! watches the invariants after every single write, from what is so and not from what the decision says.
//!
//! - `world`: the world and its invariants
//! - `scenarios`: one story each
//! - `stopping`: runs that are stopped, rolled back, held, approved
//! - `history`: random histories

mod history;
mod scenarios;
mod stopping;
mod world;
