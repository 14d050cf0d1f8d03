//! The one task that owns the [`Node`]: wait, feed, flush.
//!
//! Everybody else talks to it through a bounded channel ([`Engine`]). In each turn, in this order of priority:
//! 1. stop, when told to;
//! 2. datagrams, up to [`DATAGRAMS_PER_TURN`], then who refused one: what has arrived is heard before anybody is accused;
//! 3. inputs from other tasks, up to [`INPUTS_PER_TURN`];
//! 4. timers that are due, unless more datagrams wait ([`Courtesy`]);
//! 5. effects.
//!
//! Datagrams may be lost (and are counted); inputs and timers never are. Dropping the task at any await is safe: all
//! state that must survive is on the disk before it is used.

mod confirm;
mod tell;

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;

pub(super) use self::confirm::{Asked, Confirmation, Unasked};
use super::clock::Clock;
use super::hub::Hub;
use super::keeper::{KeepError, Keeper, Ordered, Stored, Writer, Written};
use super::metrics;
use super::stream::{Connection, StreamError, Topic};
use super::trust::{SharedState, Trust, lock};
use super::udp::Udp;
use crate::node::tables::WriteError;
use crate::node::{Command, Effect, ExchangeError, ExchangeId, Node, Now, Order, OrderError, Peer, Write};
use crate::record::NodeId;
use crate::record::decision::Decision;
use crate::wire::DecodeError;
use crate::wire::decision::SignedDecision;
use crate::wire::table::Sight;

/// Datagrams taken in before timers get their turn.
const DATAGRAMS_PER_TURN: usize = 128;
/// Turns in a row in which timers let datagrams pass that still wait. With [`DATAGRAMS_PER_TURN`] each, this is about what
/// a receive buffer of the system's usual size holds: a node that was stopped for seconds hears all of it before it
/// judges, and a flood cannot keep it from judging.
const TURNS_GIVEN_UP_MAX: u32 = 4;
/// Reports of refused datagrams taken in before timers get their turn.
const REFUSALS_PER_TURN: usize = 64;
/// Inputs taken in before timers get their turn.
const INPUTS_PER_TURN: usize = 64;
/// Inputs that may wait: a few for each connection that may be open.
const INPUTS_MAX: usize = 1_024;
/// Time between two tries to write a generation to a disk that refuses.
const PERSIST_RETRY: Duration = Duration::from_secs(1);

enum Input {
    Query(Box<dyn FnOnce(&Node) + Send>),
    Request { peer: Peer, body: Vec<u8>, reply: oneshot::Sender<Result<Vec<u8>, DecodeError>> },
    Reply { id: ExchangeId, outcome: Result<(Peer, Vec<u8>), ExchangeError> },
    Command(Command),
    Orders { orders: Vec<Order>, reply: oneshot::Sender<Result<OrderReceipt, OrderError>> },
    Write { write: Write, reply: oneshot::Sender<Result<WriteReceipt, WriteRefused>> },
    Confirm { what: Asked, reply: oneshot::Sender<Option<u32>> },
    ForgetConfirm(u32),
    Rebind(Udp),
}

/// Tells when decisions count.
type OrderReceipt = oneshot::Receiver<Result<Vec<SignedDecision>, KeepError>>;

/// Tells when a write into an own table counts, and which version it has led to.
type WriteReceipt = oneshot::Receiver<Result<Option<Sight>, KeepError>>;

/// A write into an own table was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteRefused {
    /// It breaks a limit.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Not stored.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// The protocol task has ended.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// A decision was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecideError {
    /// Refused.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// Not stored.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// The protocol task has ended.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// What other tasks wait for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// A full-state exchange has happened.
    pub joined: bool,
    /// A leave is over: acknowledged or not.
    pub left: Option<bool>,
    /// How often members have come, gone or moved.
    pub changes: u64,
    /// How often something was decided.
    pub decisions: u64,
    /// How often a question was answered by all, or an examination ended.
    pub confirmations: u64,
}

/// The protocol task has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the protocol task has stopped")]
pub struct Stopped;

/// A handle to the protocol task. Cheap to clone.
#[derive(Clone)]
pub(super) struct Engine {
    /// The clock that the node is driven by.
    pub clock: Clock,
    inputs: mpsc::Sender<Input>,
    progress: watch::Receiver<Progress>,
}

/// What the protocol task is surrounded by.
pub(super) struct Shell {
    /// Both clocks.
    pub clock: Clock,
    /// The socket for datagrams.
    pub udp: Udp,
    /// Certificates.
    pub trust: Arc<Trust>,
    /// The state directory.
    pub state: SharedState,
    /// Where changes are told.
    pub hub: Arc<Hub>,
    /// Told when this node is a member no more.
    pub removed: mpsc::Sender<Arc<Decision>>,
}

impl Engine {
    /// Starts the task. It ends when `stop` becomes true or is dropped.
    pub(super) fn spawn(node: Node, shell: Shell, stop: watch::Receiver<bool>) -> (Self, tokio::task::JoinHandle<()>) {
        let (inputs, receiver) = mpsc::channel(INPUTS_MAX);
        let (progress_sender, progress) = watch::channel(Progress::default());
        let Shell { clock, udp, trust, state, hub, removed } = shell;
        let keeper = Keeper::new(lock(&state).vault());
        let task = Task {
            keeper,
            node,
            clock,
            udp,
            trust,
            state,
            hub,
            inputs: receiver,
            // Held weakly, so that the channel's end can be seen.
            sender: inputs.downgrade(),
            progress: progress_sender,
            courtesy: Courtesy::default(),
            removed,
            unpersisted: None,
            failed_exchanges: VecDeque::new(),
        };
        let handle = tokio::spawn(task.run(stop));
        (Self { clock, inputs, progress }, handle)
    }

    /// Reads something from the node.
    ///
    /// # Errors
    /// [`Stopped`].
    pub(super) async fn query<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Node) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (sender, receiver) = oneshot::channel();
        let query = Input::Query(Box::new(move |node| {
            // Whoever asked may have gone.
            let _ = sender.send(read(node));
        }));
        self.inputs.send(query).await.map_err(|_| Stopped)?;
        receiver.await.map_err(|_| Stopped)
    }

    /// Has the node answer a member's request.
    ///
    /// # Errors
    /// [`Stopped`], or inside: what is wrong with the request.
    pub(super) async fn request(&self, peer: Peer, body: Vec<u8>) -> Result<Result<Vec<u8>, DecodeError>, Stopped> {
        let (reply, receiver) = oneshot::channel();
        self.inputs.send(Input::Request { peer, body, reply }).await.map_err(|_| Stopped)?;
        receiver.await.map_err(|_| Stopped)
    }

    /// Gives the node an order.
    ///
    /// # Errors
    /// [`Stopped`].
    pub(super) async fn command(&self, command: Command) -> Result<(), Stopped> {
        self.inputs.send(Input::Command(command)).await.map_err(|_| Stopped)
    }

    /// Decides: signed, stored, then in force here and on its way to all others.
    ///
    /// # Errors
    /// [`DecideError`]; nothing was decided then.
    pub(super) async fn decide(&self, orders: Vec<Order>) -> Result<Vec<SignedDecision>, DecideError> {
        let (reply, receiver) = oneshot::channel();
        self.inputs.send(Input::Orders { orders, reply }).await.map_err(|_| Stopped)?;
        let stored = receiver.await.map_err(|_| Stopped)??;
        Ok(stored.await.map_err(|_| Stopped)??)
    }

    /// Writes into this node's own tables: stored, then in force here and on its way to others. Says which version it has
    /// led to; none: it changes nothing.
    ///
    /// # Errors
    /// [`WriteRefused`]; nothing was written then.
    pub(super) async fn write(&self, write: Write) -> Result<Option<Sight>, WriteRefused> {
        let (reply, receiver) = oneshot::channel();
        self.inputs.send(Input::Write { write, reply }).await.map_err(|_| Stopped)?;
        let stored = receiver.await.map_err(|_| Stopped)??;
        Ok(stored.await.map_err(|_| Stopped)??)
    }

    /// Sends and receives datagrams through another socket from now on; what waits in the old one is lost.
    ///
    /// # Errors
    /// [`Stopped`].
    pub(super) async fn rebind(&self, udp: Udp) -> Result<(), Stopped> {
        self.inputs.send(Input::Rebind(udp)).await.map_err(|_| Stopped)
    }

    /// How far things have come.
    pub(super) fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Waits until `done`.
    ///
    /// # Errors
    /// [`Stopped`].
    pub(super) async fn wait(&self, done: impl FnMut(&Progress) -> bool) -> Result<Progress, Stopped> {
        let mut progress = self.progress.clone();
        let reached = progress.wait_for(done).await.map_err(|_| Stopped)?;
        Ok(*reached)
    }
}

/// Who is due may have spoken already: timers let datagrams that wait pass, for a while.
#[derive(Debug, Default)]
struct Courtesy {
    given_up: u32,
}

impl Courtesy {
    /// Whether timers that are due may fire in this turn.
    fn allows(&mut self, datagrams_wait: bool) -> bool {
        let is_over = !datagrams_wait || self.given_up >= TURNS_GIVEN_UP_MAX;
        self.given_up = if is_over { 0 } else { self.given_up + 1 };
        is_over
    }
}

struct Task {
    node: Node,
    clock: Clock,
    udp: Udp,
    trust: Arc<Trust>,
    state: SharedState,
    hub: Arc<Hub>,
    inputs: mpsc::Receiver<Input>,
    sender: mpsc::WeakSender<Input>,
    progress: watch::Sender<Progress>,
    courtesy: Courtesy,
    keeper: Keeper,
    /// Told when this node is a member no more.
    removed: mpsc::Sender<Arc<Decision>>,
    /// A generation that the disk has refused so far. Until it is stored nothing is sent: a life that the disk does not
    /// know must not be heard of.
    unpersisted: Option<(u64, Instant)>,
    failed_exchanges: VecDeque<ExchangeId>,
}

impl Task {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        // One byte more than the cap: a datagram that fills it was too long.
        let mut buffer = vec![0_u8; crate::node::DATAGRAM_BYTES_CEILING + 1];
        loop {
            let due = self.node.next_timeout_us().map(|at| self.clock.instant(at));
            let due = due.into_iter().chain(self.keeper.due()).min();
            let first = tokio::select! {
                biased;
                () = stopped(&mut stop) => return self.keeper.close().await,
                () = self.udp.ready() => None,
                input = self.inputs.recv() => match input {
                    Some(input) => Some(input),
                    None => return self.keeper.close().await,
                },
                written = self.keeper.written() => {
                    self.stored(written);
                    None
                }
                () = wait_until(due) => None,
            };
            let datagrams_wait = self.receive(&mut buffer);
            self.hear_refusals();
            if let Some(input) = first {
                self.feed(input);
            }
            for _ in 0..INPUTS_PER_TURN {
                match self.inputs.try_recv() {
                    Ok(input) => self.feed(input),
                    Err(_) => break,
                }
            }
            let now = self.clock.now();
            let is_due = self.node.next_timeout_us().is_some_and(|due| due <= now.mono_us);
            if is_due && self.courtesy.allows(datagrams_wait) {
                self.node.handle_timeout(now);
            }
            self.flush();
            // There is one thread. However many datagrams wait, the API, TCP and signals get their turn.
            tokio::task::yield_now().await;
        }
    }

    /// Takes datagrams in and says whether more may wait.
    fn receive(&mut self, buffer: &mut [u8]) -> bool {
        for _ in 0..DATAGRAMS_PER_TURN {
            match self.udp.try_recv_from(buffer) {
                Ok((len, _from)) => {
                    if let Some(datagram) = buffer.get_mut(..len) {
                        self.node.handle_datagram(self.clock.now(), datagram);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // Somebody refused an earlier datagram; `hear_refusals` learns who.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                // Another ICMP error of an earlier send; the socket stays usable.
                Err(error) => metrics::udp_error("receive", &error),
            }
        }
        true
    }

    fn hear_refusals(&mut self) {
        for _ in 0..REFUSALS_PER_TURN {
            match self.udp.try_refusal() {
                Ok(Some(to)) => {
                    metrics::datagram_refused();
                    self.node.handle_refused(self.clock.now(), to);
                }
                // About something else, such as a host that is not reachable.
                Ok(None) => {}
                Err(_) => return,
            }
        }
    }

    fn feed(&mut self, input: Input) {
        let now = self.clock.now();
        match input {
            Input::Query(read) => read(&self.node),
            Input::Request { peer, body, reply } => {
                let answer = self.node.handle_request(now, peer, &body);
                // The answer may speak of a generation that is to be stored first. Without one, the asker tries again.
                self.flush();
                if self.unpersisted.is_none() {
                    // Whoever asked may have gone.
                    let _ = reply.send(answer);
                }
            }
            Input::Reply { id, outcome } => {
                let outcome = outcome.as_ref().map(|(peer, body)| (*peer, body.as_slice())).map_err(|error| *error);
                self.node.handle_reply(now, id, outcome);
            }
            Input::Command(command) => self.node.handle_command(now, command),
            Input::Orders { orders, reply } => {
                let receipt = self.node.handle_orders(now, orders).map(|decisions| {
                    let (reply, receipt) = oneshot::channel();
                    self.keeper.order(Ordered { decisions, reply });
                    receipt
                });
                // Whoever asked may have gone.
                let _ = reply.send(receipt);
            }
            Input::Write { write, reply } => {
                let receipt = self.write(now, write);
                // Whoever asked may have gone.
                let _ = reply.send(receipt);
            }
            Input::Confirm { what, reply } => {
                let nonce = match what {
                    Asked::Decisions(have) => self.node.handle_confirm(now, have),
                    Asked::Table(sight) => self.node.handle_sighting(now, sight),
                };
                // Whoever asked may have gone.
                if let Err(Some(nonce)) = reply.send(nonce) {
                    self.node.forget_confirm(nonce);
                }
            }
            Input::ForgetConfirm(nonce) => self.node.forget_confirm(nonce),
            Input::Rebind(udp) => self.udp = udp,
        }
    }

    fn write(&mut self, now: Now, write: Write) -> Result<WriteReceipt, WriteRefused> {
        if !self.keeper.has_room() {
            return Err(KeepError::Busy.into());
        }
        let sight = self.node.handle_write(now, write)?;
        let (reply, receipt) = oneshot::channel();
        self.keeper.wait_for(sight, reply);
        Ok(receipt)
    }

    /// What was decided or written here is on the disk: now it counts.
    fn stored(&mut self, written: Written) {
        let Stored { orders, steps, writers, is_unwritten } = self.keeper.finish(written);
        let now = self.clock.now();
        for Ordered { decisions, reply } in orders {
            self.node.handle_command(now, Command::Decided(decisions.clone()));
            // Whoever asked may have gone.
            let _ = reply.send(Ok(decisions));
        }
        for step in steps {
            self.node.handle_command(now, Command::Written(step));
        }
        for Writer { after: _, sight, reply } in writers {
            // Whoever asked may have gone.
            let _ = reply.send(Ok(sight));
        }
        if is_unwritten {
            self.node.handle_command(now, Command::Unwritten);
        }
    }

    fn flush(&mut self) {
        self.retry_persist();
        loop {
            while let Some(effect) = self.node.poll_effect() {
                self.carry_out(effect);
            }
            let Some(id) = self.failed_exchanges.pop_front() else { return self.keeper.poke() };
            // Not started at all: that says nothing about the other side.
            self.node.handle_reply(self.clock.now(), id, Err(ExchangeError::Broken));
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::PersistGeneration(generation) => {
                self.unpersisted = Some((generation, Instant::now()));
                self.retry_persist();
            }
            Effect::Send { to, bytes } => {
                if self.unpersisted.is_none()
                    && let Err(error) = self.udp.try_send_to(&bytes, to)
                {
                    metrics::udp_error("send", &error);
                }
            }
            Effect::Exchange { id, to, peer, request, patience_ms } => match self.sender.upgrade() {
                Some(sender) if self.unpersisted.is_none() => {
                    let trust = Arc::clone(&self.trust);
                    tokio::spawn(async move {
                        let patience = Duration::from_millis(patience_ms);
                        let outcome = exchange(&trust, to, peer, &request, patience).await;
                        // The engine may have stopped meanwhile.
                        let _ = sender.send(Input::Reply { id, outcome }).await;
                    });
                }
                _ => self.failed_exchanges.push_back(id),
            },
            Effect::Keep { slot, decision } => self.keeper.keep(slot, Some(decision)),
            Effect::Forget { slot } => self.keeper.keep(slot, None),
            Effect::KeepTable { step, lives } => self.keeper.keep_step((step, lives)),
            Effect::Event(event) => self.tell(event),
        }
    }

    fn retry_persist(&mut self) {
        let Some((generation, not_before)) = self.unpersisted else { return };
        if Instant::now() < not_before {
            return;
        }
        match lock(&self.state).persist_generation(generation) {
            Ok(()) => self.unpersisted = None,
            Err(error) => {
                tracing::error!(%error, generation, "this node stays silent until its generation is stored");
                self.unpersisted = Some((generation, Instant::now() + PERSIST_RETRY));
            }
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Whoever could say so has gone: that is the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => pending().await,
    }
}

async fn exchange(
    trust: &Trust,
    to: SocketAddr,
    peer: Option<NodeId>,
    request: &[u8],
    patience: Duration,
) -> Result<(Peer, Vec<u8>), ExchangeError> {
    let config = Arc::clone(&trust.configs().client);
    let failed = |error: StreamError| {
        tracing::debug!(%to, %error, "exchange failed");
        if matches!(error, StreamError::UnknownCa) {
            trust.note_unknown_ca();
        }
        error.outcome()
    };
    let connection = Connection::open(to, config, patience).await.map_err(failed)?;
    let answerer = connection.peer;
    // An address may have passed to another node, or be this node's own.
    if answerer.id == trust.me || peer.is_some_and(|expected| expected != answerer.id) {
        return Err(ExchangeError::WrongPeer);
    }
    let reply = connection.ask(Topic::Exchange, request).await.map_err(failed)?;
    Ok((answerer, reply))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_let_waiting_datagrams_pass_but_not_for_ever() {
        let mut courtesy = Courtesy::default();
        let mut turns = |datagrams_wait: &[bool]| -> Vec<bool> {
            datagrams_wait.iter().map(|wait| courtesy.allows(*wait)).collect()
        };
        assert_eq!(turns(&[false, false]), [true, true]);
        assert_eq!(turns(&[true, true, false]), [false, false, true]);
        // A flood.
        assert_eq!(turns(&[true; 6]), [false, false, false, false, true, false]);
    }
}
