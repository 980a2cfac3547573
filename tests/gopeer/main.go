// A member on etcd's own rafthttp package: the other end of tests (driven over standard input) and of benchmarks.
package main

import (
	"context"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	stats "go.etcd.io/etcd/server/v3/etcdserver/api/v2stats"
	"go.uber.org/zap"
)

// The raft behind the transport: whoever plays a role says what it does.
type node struct {
	take        func(message) error
	removed     func(id uint64) bool
	unreachable func(id uint64)
	snapshot    func(id uint64, delivered bool)
}

func (n *node) Process(_ context.Context, m message) error { return n.take(m) }
func (n *node) IsIDRemoved(id uint64) bool                 { return n.removed(id) }
func (n *node) ReportUnreachable(id uint64)                { n.unreachable(id) }
func (n *node) ReportSnapshot(id uint64, status snapshotStatus) {
	n.snapshot(id, status == snapshotFinish)
}

type config struct {
	id, cluster               uint64
	local, cert, key, ca, dir string
	logger                    *zap.Logger
	node                      *node
}

type member struct {
	*rafthttp.Transport
	listener net.Listener
	url      string
	scheme   string
	critical chan error
}

// Listens and builds the transport; serve lets the others in.
func start(c config) (*member, error) {
	scheme, tlsInfo, listenTLS := "http", transport.TLSInfo{}, (*transport.TLSInfo)(nil)
	if c.cert != "" {
		scheme = "https"
		tlsInfo = transport.TLSInfo{CertFile: c.cert, KeyFile: c.key, TrustedCAFile: c.ca, ClientCertAuth: true, Logger: c.logger}
		listenTLS = &tlsInfo
	}
	listener, err := rafthttp.NewListener(url.URL{Scheme: scheme, Host: c.local}, listenTLS)
	if err != nil {
		return nil, err
	}
	own := url.URL{Scheme: scheme, Host: listener.Addr().String()}
	critical := make(chan error, 16)
	tr := &rafthttp.Transport{
		Logger: c.logger, DialTimeout: time.Second, TLSInfo: tlsInfo, ID: types.ID(c.id), URLs: types.URLs{own}, ClusterID: types.ID(c.cluster),
		Raft: c.node, Snapshotter: snap.New(c.logger, c.dir), ServerStats: stats.NewServerStats("", ""), LeaderStats: newLeaderStats(), ErrorC: critical,
	}
	if err := tr.Start(); err != nil {
		return nil, err
	}
	return &member{Transport: tr, listener: listener, url: own.String(), scheme: scheme, critical: critical}, nil
}

func (m *member) serve() {
	// A handler whose Process fails panics to cut the connection: that is no news.
	server := http.Server{Handler: m.Handler(), ErrorLog: log.New(io.Discard, "", 0)}
	go server.Serve(m.listener)
}

func main() {
	role := flag.String("role", "", "member, driven over standard input; send, recv, idle: etcd at both ends; source, sink: ours at the other")
	var c config
	flag.Uint64Var(&c.id, "id", 0, "member: its ID; the other roles are 1 (who sends) and 2")
	flag.Uint64Var(&c.cluster, "cluster", 0x1000, "cluster ID")
	flag.StringVar(&c.local, "local", "127.0.0.1:0", "host:port to listen on")
	flag.StringVar(&c.cert, "cert", "", "certificate; with it everything is https")
	flag.StringVar(&c.key, "key", "", "its key")
	flag.StringVar(&c.ca, "ca", "", "who signs the others'")
	flag.StringVar(&c.dir, "dir", "", "member: where received snapshots are saved")
	flag.StringVar(&version.Version, "version", version.Version, "the server version that is told")
	flag.StringVar(&version.MinClusterVersion, "min-cluster-version", version.MinClusterVersion, "the minimum cluster version that is told and held to")
	b := benchFlags()
	flag.Parse()
	var err error
	if *role == "member" {
		err = drive(c)
	} else {
		err = b.run(*role, c)
	}
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}
