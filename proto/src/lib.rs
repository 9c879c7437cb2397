//! What is generated from `proto/*.proto`, and nothing else.

#[allow(clippy::all, clippy::pedantic, clippy::restriction, missing_docs, reason = "generated")]
pub mod agent {
    tonic::include_proto!("rota.agent.v1");
}

#[allow(clippy::all, clippy::pedantic, clippy::restriction, missing_docs, reason = "generated")]
pub mod controller {
    tonic::include_proto!("rota.controller.v1");
}

#[allow(clippy::all, clippy::pedantic, clippy::restriction, missing_docs, reason = "generated")]
pub mod operator {
    tonic::include_proto!("rota.operator.v1");
}

#[allow(clippy::all, clippy::pedantic, clippy::restriction, missing_docs, reason = "generated")]
pub mod traffic {
    tonic::include_proto!("rota.traffic.v1");
}

/// etcd's services, as much as the store uses of them.
pub mod etcd {
    #[allow(clippy::all, clippy::pedantic, clippy::restriction, missing_docs, reason = "generated")]
    pub mod mvccpb {
        tonic::include_proto!("mvccpb");
    }

    #[allow(clippy::all, clippy::pedantic, clippy::restriction, missing_docs, reason = "generated")]
    pub mod etcdserverpb {
        tonic::include_proto!("etcdserverpb");
    }
}
