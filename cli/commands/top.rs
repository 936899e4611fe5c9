//! `top`: what goes on, in a terminal, until somebody has seen enough.

use std::io::{self, IsTerminal};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::Context;
use crate::database::builder;
use crate::failure::Failure;
use crate::top::{Observer, View};
use crate::ui::Target;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long the system may take to stop this process.
const STOP_MAX: Duration = Duration::from_millis(200);
/// How long the thread that waits for keys may take to notice that nobody wants them any more.
const KEYS_POLL: Duration = Duration::from_millis(100);

/// What is done at the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Quit,
    /// As Ctrl-Z does everywhere.
    Suspend,
    /// Its size has changed.
    Redraw,
}

pub(super) async fn top(context: &Context) -> Result<u8, Failure> {
    check(context)?;
    let interrupted = context.interrupts.next();
    tokio::pin!(interrupted);
    let engine = builder(context.database.path()).read_only().open().await?;
    let mut observer = Observer::new(engine, context.database.path());
    let mut state = observer.look().await?;
    let mut screen = Screen::enter()?;
    let mut inputs = inputs();
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => state = observer.look().await?,
            input = inputs.recv() => match input {
                Some(Input::Redraw) => {}
                Some(Input::Suspend) => {
                    drop(screen);
                    suspend().await.map_err(|error| Failure::system("suspend top", &error))?;
                    screen = Screen::enter()?;
                    state = observer.look().await?;
                }
                Some(Input::Quit) | None => return Ok(0),
            },
            () = &mut interrupted => return Ok(0),
        }
        let view = View { state: &state, colours: Target::Stdout.has_colours() };
        let drawn = screen.0.draw(|frame| frame.render_widget(view, frame.area()));
        drawn.map_err(|error| Failure::system("draw on the terminal", &error))?;
    }
}

/// Whether there is a terminal to draw on, and something to draw.
fn check(context: &Context) -> Result<(), Failure> {
    const INSTEAD: &str = "`adjutant ps --json` lists runs for programs";
    if context.json {
        return Err(Failure::usage(format!("top has no --json; {INSTEAD}")));
    }
    if !Target::Stdout.is_terminal() || !io::stdin().is_terminal() {
        let message = format!("top needs a terminal for its input and output; {INSTEAD}");
        return Err(Failure::new("Terminal.Missing", 400, message));
    }
    if context.database.is_missing() {
        let path = context.database.path().display();
        return Err(Failure::new(
            "Storage.Missing",
            404,
            format!("there is no database at {path} yet"),
        ));
    }
    Ok(())
}

/// The terminal as it is while the view is shown; as it was before, whatever ends this.
struct Screen(DefaultTerminal);

impl Screen {
    fn enter() -> Result<Self, Failure> {
        // A panic gives the terminal back too, before it says anything.
        ratatui::try_init().map(Self).map_err(|error| {
            let _ = ratatui::try_restore();
            Failure::system("take over the terminal", &error)
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing back.
        let _ = ratatui::try_restore();
    }
}

/// Stops this process until somebody continues it. Returns at once if nobody could, because no shell waits for it.
async fn suspend() -> io::Result<()> {
    let mut continued = signal(SignalKind::from_raw(Signal::CONT.as_raw()))?;
    rustix::process::kill_process(rustix::process::getpid(), Signal::TSTP)?;
    let _ = tokio::time::timeout(STOP_MAX, continued.recv()).await;
    Ok(())
}

/// What is done at the terminal, as it comes; a thread waits for it.
fn inputs() -> mpsc::Receiver<Input> {
    let (sender, inputs) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        while !sender.is_closed() {
            let event = match event::poll(KEYS_POLL) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            // A terminal that cannot be read has gone.
            let Ok(event) = event else { return };
            if let Some(input) = meaning(&event)
                && sender.blocking_send(input).is_err()
            {
                return;
            }
        }
    });
    inputs
}

fn meaning(event: &Event) -> Option<Input> {
    match event {
        Event::Resize(..) => Some(Input::Redraw),
        Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => Some(Input::Quit),
            KeyCode::Char('z') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                Some(Input::Suspend)
            }
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                Some(Input::Quit)
            }
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::KeyEvent;

    use super::*;

    #[test]
    fn some_keys_end_it() {
        let check = |code, modifiers, want| {
            assert_eq!(meaning(&Event::Key(KeyEvent::new(code, modifiers))), want, "{code:?}");
        };
        check(KeyCode::Char('q'), KeyModifiers::NONE, Some(Input::Quit));
        check(KeyCode::Esc, KeyModifiers::NONE, Some(Input::Quit));
        check(KeyCode::Char('c'), KeyModifiers::CONTROL, Some(Input::Quit));
        check(KeyCode::Char('z'), KeyModifiers::CONTROL, Some(Input::Suspend));
        check(KeyCode::Char('z'), KeyModifiers::NONE, None);
        check(KeyCode::Char('c'), KeyModifiers::NONE, None);
        check(KeyCode::Enter, KeyModifiers::NONE, None);
        assert_eq!(meaning(&Event::Resize(1, 1)), Some(Input::Redraw));
    }
}
