//! A small world in which decisions are carried out: it keeps versions as the API server does, evicts as it does, and
//! watches the invariants after every single write, from what is so and not from what the decision says.
//!
//! - `world`: the world and its invariants
//! - `scenarios`: one story each
//! - `gates`: gates, hooks and Rollouts that wait for each other
//! - `stopping`: runs that are stopped, rolled back, held, approved
//! - `disruption`: how machines are taken out of service
//! - `time`: stories of windows, deadlines, estimates and previews
//! - `budgets`: several Rollouts under one budget
//! - `history`: random histories
//! - `scale`: tens of thousands of machines

mod budgets;
mod disruption;
mod gates;
mod history;
mod scale;
mod scenarios;
mod stopping;
mod time;
mod world;
