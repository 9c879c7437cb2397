//! Compiles the .proto files with protox, so that building needs no `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["proto/agent.proto", "proto/operator.proto", "proto/traffic.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().bytes(".rota.agent.v1.Chunk.data").compile_fds(descriptors)?;
    Ok(())
}
