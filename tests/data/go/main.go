// A go-libp2p peer that tries our muxer: `peer <noise|tls> <multiaddr>`.
//
// It writes and reads 3 MB on three streams at once, pings, and has a stream reset; it prints a line for each.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	tls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
)

func must(err error) {
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func main() {
	security := libp2p.Security(noise.ID, noise.New)
	if os.Args[1] == "tls" {
		security = libp2p.Security(tls.ID, tls.New)
	}
	host, err := libp2p.New(security, libp2p.NoListenAddrs, libp2p.Transport(tcp.NewTCPTransport), libp2p.DisableRelay())
	must(err)
	target, err := peer.AddrInfoFromString(os.Args[2])
	must(err)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	must(host.Connect(ctx, *target))

	var streams sync.WaitGroup
	for number := range 3 {
		streams.Add(1)
		go func() {
			defer streams.Done()
			stream, err := host.NewStream(ctx, target.ID, "/test/echo/1")
			must(err)
			payload := bytes.Repeat([]byte{byte(number), 7, 9}, 1_000_000)
			go func() {
				_, err := stream.Write(payload)
				must(err)
				must(stream.CloseWrite())
			}()
			echoed, err := io.ReadAll(stream)
			must(err)
			fmt.Println("echoed", bytes.Equal(echoed, payload))
		}()
	}
	streams.Wait()

	result := <-ping.Ping(ctx, host, target.ID)
	must(result.Error)
	fmt.Println("pinged")

	stream, err := host.NewStream(ctx, target.ID, "/test/reset/1")
	must(err)
	_, err = io.ReadAll(stream)
	fmt.Println("reset", err)

	for _, connection := range host.Network().ConnsToPeer(target.ID) {
		fmt.Println(connection.ConnState().StreamMultiplexer, connection.ConnState().Security)
	}
	must(host.Close())
}
