//! What is generated from `proto/*.proto`, and nothing else.

#[expect(clippy::all, missing_docs, reason = "generated")]
pub mod agent {
    tonic::include_proto!("rota.agent.v1");
}

#[expect(clippy::all, missing_docs, reason = "generated")]
pub mod operator {
    tonic::include_proto!("rota.operator.v1");
}

#[expect(clippy::all, missing_docs, reason = "generated")]
pub mod traffic {
    tonic::include_proto!("rota.traffic.v1");
}
