//! Kubernetes, for real.

mod at_hand;
mod controller;
mod deployments;
mod guard;

mod image;
mod inside;
mod kept;
mod kinds;
mod lab;
mod mixed;
mod objects;
mod panda;
mod people;
mod pods;
mod pretended;
mod printed;
mod promotions;
mod rehearsals;
mod replica;
mod scale;
mod survey;
mod takeover;
mod told;
mod trouble;
