// What etcd makes of the flags that say who a member is: reads a JSON object a line, and answers each with one.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/pkg/v3/flags"
	"go.etcd.io/etcd/server/v3/config"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.uber.org/zap"
)

// The flags of a member, as they are written.
type asked struct {
	Name, Cluster, Token, Advertise string
}

// Either an error, or who the members are.
type answer struct {
	Error   string            `json:"error,omitempty"`
	Cluster string            `json:"cluster,omitempty"`
	Members map[string]string `json:"members,omitempty"`
	// etcd would look up names to find out whether the member's two lists of URLs mean the same addresses.
	Resolves bool `json:"resolves,omitempty"`
}

func answerTo(flagged asked) (answer, error) {
	urls, err := types.NewURLsMap(flagged.Cluster)
	if err != nil {
		return answer{}, err
	}
	advertised := flags.NewUniqueURLsWithExceptions("")
	if err := advertised.Set(flagged.Advertise); err != nil {
		return answer{}, err
	}
	server := config.ServerConfig{Name: flagged.Name, InitialPeerURLsMap: urls, Logger: zap.NewNop()}
	listed, told := urls[flagged.Name].StringSlice(), strings.Split(advertised.String(), ",")
	sort.Strings(listed)
	resolves := len(listed) == len(told) && strings.Join(listed, ",") != advertised.String()
	if resolves {
		server.PeerURLs = urls[flagged.Name]
	} else if server.PeerURLs, err = types.NewURLs(told); err != nil {
		return answer{}, err
	}
	if err := server.VerifyBootstrap(); err != nil {
		return answer{}, err
	}
	cluster, err := membership.NewClusterFromURLsMap(zap.NewNop(), flagged.Token, urls)
	if err != nil {
		return answer{}, err
	}
	members := map[string]string{}
	for _, member := range cluster.Members() {
		members[member.Name] = member.ID.String()
	}
	return answer{Cluster: cluster.ID().String(), Members: members, Resolves: resolves}, nil
}

func main() {
	lines, answers := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var flagged asked
		if err := json.Unmarshal(lines.Bytes(), &flagged); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		answered, err := answerTo(flagged)
		if err != nil {
			answered = answer{Error: err.Error()}
		}
		if err := answers.Encode(answered); err != nil {
			os.Exit(1)
		}
	}
}
