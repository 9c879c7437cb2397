//! What nodes and edges say to each other, both ways.

use rota_proto::agent as fleet;
use rota_proto::traffic as proto;

use super::field::{At, BadField};
use crate::traffic::{Desired, Intent, Key, Member, Observed, Refusal, Report, View, Want};

/// A node's intent, as an edge receives it.
pub fn intent(intent: proto::MemberIntent) -> Result<Intent, BadField> {
    let at = At::root();
    let want = match intent.want() {
        proto::Want::In => Want::In,
        proto::Want::Out => Want::Out,
        proto::Want::Gone => Want::Gone,
        proto::Want::Unspecified => {
            let problem = format!("is {}: use IN, OUT or GONE", intent.want);
            return Err(at.field("want").bad(problem));
        }
    };
    let port = match u16::try_from(intent.port) {
        Ok(port) if port > 0 => port,
        Ok(_) | Err(_) => {
            return Err(at.field("port").bad(format!("is {}: use 1 to 65535", intent.port)));
        }
    };
    let health_path = match intent.health_path {
        path if path.is_empty() => None,
        path => Some(at.field("health_path").http_path(path)?),
    };
    let instance = match intent.instance {
        instance if instance.is_empty() => instance,
        instance => at.field("instance").label(instance)?,
    };
    Ok(Intent {
        seq: intent.seq,
        pool: at.field("pool").label(intent.pool)?,
        node: at.field("node").label(intent.node)?,
        instance,
        desired: Desired {
            host: Some(intent.host).filter(|host| !host.is_empty()),
            port,
            want,
            cut: intent.cut && want == Want::Out,
            health_path,
            version: at.field("version").plain(intent.version)?,
        },
    })
}

/// A node's intent, as it goes out.
pub fn intent_out(intent: &Intent) -> proto::MemberIntent {
    let want = match intent.desired.want {
        Want::In => proto::Want::In,
        Want::Out => proto::Want::Out,
        Want::Gone => proto::Want::Gone,
    };
    proto::MemberIntent {
        seq: intent.seq,
        pool: intent.pool.clone(),
        node: intent.node.clone(),
        instance: intent.instance.clone(),
        host: intent.desired.host.clone().unwrap_or_default(),
        port: u32::from(intent.desired.port),
        want: want.into(),
        cut: intent.desired.cut,
        health_path: intent.desired.health_path.clone().unwrap_or_default(),
        version: intent.desired.version.clone(),
    }
}

/// An edge's report, as a node receives it.
pub fn member_report(report: proto::MemberReport) -> Result<Report, BadField> {
    let at = At::root();
    let observed = match report.observed() {
        proto::Observed::In => Observed::In,
        proto::Observed::Draining => Observed::Draining,
        proto::Observed::Out => Observed::Out,
        proto::Observed::Absent => Observed::Absent,
        proto::Observed::Joining => Observed::Joining,
        // What was refused need not have been looked at.
        proto::Observed::Unspecified if !report.refused.is_empty() => Observed::Absent,
        proto::Observed::Unspecified => {
            let problem = format!("is {}, which this version does not know", report.observed);
            return Err(at.field("observed").bad(problem));
        }
    };
    Ok(Report {
        seq: report.seq,
        pool: report.pool,
        instance: report.instance,
        observed,
        in_flight: report.in_flight,
        cut: report.cut,
        refused: Some(report.refused).filter(|why| !why.is_empty()),
        silent: report.silent,
    })
}

/// An edge's report, as it goes out.
pub fn member_report_out(report: &Report) -> proto::MemberReport {
    let observed = match report.observed {
        Observed::In => proto::Observed::In,
        Observed::Joining => proto::Observed::Joining,
        Observed::Draining => proto::Observed::Draining,
        Observed::Out => proto::Observed::Out,
        Observed::Absent => proto::Observed::Absent,
    };
    proto::MemberReport {
        seq: report.seq,
        pool: report.pool.clone(),
        instance: report.instance.clone(),
        observed: observed.into(),
        in_flight: report.in_flight,
        cut: report.cut,
        refused: report.refused.clone().unwrap_or_default(),
        silent: report.silent,
    }
}

/// What an edge tells the controllers of one pool.
pub fn pool_state(pool: &str, view: &View) -> fleet::PoolState {
    let member = |(key, member): (&Key, &Member)| fleet::Member {
        node: key.node.clone(),
        instance: key.instance.clone(),
        address: member.address.to_string(),
        state: match member.observed {
            Observed::In => "in",
            Observed::Joining => "joining",
            Observed::Draining => "draining",
            Observed::Out | Observed::Absent => "out",
        }
        .to_owned(),
        in_flight: member.in_flight,
        version: member.version.clone(),
    };
    fleet::PoolState {
        pool: pool.to_owned(),
        requests: view.requests,
        failed: view.failed,
        cut: view.cut,
        members: view.members.iter().map(member).collect(),
        silent: !view.answers,
    }
}

/// What an edge refused, as the controllers hear it.
pub fn refused(refusal: Refusal) -> fleet::Refusal {
    let Refusal { who, peer, target, why } = refusal;
    fleet::Refusal { who, peer, target, why }
}
