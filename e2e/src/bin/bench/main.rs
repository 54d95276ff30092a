//! `make bench`: figures, and the targets beside them. One file a section; a new one is a file
//! with a `run` and a line in [`SECTIONS`].

mod access;
mod exporter;
mod fleet;
mod pages;
mod section;
mod slots;
mod store;

use std::process::ExitCode;

use e2e::bench::Bench;
use section::Section;

/// All there are, in the order in which they run.
const SECTIONS: [Section; 6] = [
    Section {
        name: "exporter",
        about: "the exporter beside npm pm2-metrics, at the same daemon",
        run: |bench| Box::pin(exporter::run(bench)),
    },
    Section {
        name: "slots",
        about: "free slots beside Express, switches, deployments that fail under load",
        run: |bench| Box::pin(slots::run(bench)),
    },
    Section {
        name: "fleet",
        about: "the poller beside Prometheus, under load, and as the fleet grows",
        run: |bench| Box::pin(fleet::run(bench)),
    },
    Section {
        name: "pages",
        about: "charts over a month, and five hundred who watch live",
        run: |bench| Box::pin(pages::run(bench)),
    },
    Section {
        name: "store",
        about: "bytes a value on disk, and what folding and reading take",
        run: |bench| Box::pin(store::run(bench)),
    },
    Section {
        name: "access",
        about: "what a token costs, and a thousand slow connections beside node_exporter",
        run: |bench| Box::pin(access::run(bench)),
    },
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let (sections, bench) = match (section::chosen(&SECTIONS, &asked), Bench::from_environment()) {
        (Ok(sections), Ok(bench)) => (sections, bench),
        (sections, bench) => {
            for mistake in [sections.err(), bench.err()].into_iter().flatten() {
                eprintln!("bench: {mistake}");
            }
            return ExitCode::from(2);
        }
    };
    let mut failed = false;
    for section in sections {
        bench.begin(section.name, section.about);
        if let Err(error) = (section.run)(&bench).await {
            eprintln!("bench: {}: {error:#}", section.name);
            failed = true;
        }
    }
    bench.end();
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
