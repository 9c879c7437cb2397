//! Compiles the .proto files with protox, so that building needs no `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ours = [
        "proto/agent.proto",
        "proto/controller.proto",
        "proto/operator.proto",
        "proto/traffic.proto",
    ];
    let etcd = ["proto/etcd/kv.proto", "proto/etcd/rpc.proto"];
    for file in ours.iter().chain(&etcd) {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(ours, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".rota.agent.v1.Chunk.data")
        .bytes(".rota.controller.v1.Chunk.data")
        .compile_fds(descriptors)?;
    // We only call etcd.
    let descriptors = protox::compile(etcd, ["proto"])?;
    tonic_prost_build::configure().build_server(false).compile_fds(descriptors)?;
    Ok(())
}
