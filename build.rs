//! Generates the protobuf types of `proto/raftpb.proto` with `protox`, a compiler in Rust: no `protoc` to install.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/raftpb.proto"], ["proto"])?;
    prost_build::Config::new()
        // A decoded payload shares the buffer it was read into.
        .bytes(["."])
        // Few messages have one, and every message would be twice as large with it.
        .boxed(".raftpb.Message.snapshot")
        // The proto's names are etcd's; rustdoc would take its comments for our own.
        .disable_comments(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
