//! What is generated from `proto/*.proto`, and nothing else.

#[allow(clippy::all, clippy::allow_attributes_without_reason, missing_docs, reason = "generated")]
pub mod agent {
    tonic::include_proto!("rota.agent.v1");
}

#[allow(clippy::all, clippy::allow_attributes_without_reason, missing_docs, reason = "generated")]
pub mod operator {
    tonic::include_proto!("rota.operator.v1");
}

#[allow(clippy::all, clippy::allow_attributes_without_reason, missing_docs, reason = "generated")]
pub mod traffic {
    tonic::include_proto!("rota.traffic.v1");
}
