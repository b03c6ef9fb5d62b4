// Command mlsclient puts this project's member and external signer behind the
// gRPC interface by which the MLS working group's test runner drives
// implementations (mlswg/mls-implementations, interop). It serves loopback
// addresses only: whoever reaches it gets secrets for the asking.
//
//	mlsclient serve --listen 127.0.0.1:50001
//
// One process plays any number of members and signers. RFC 9420 is followed by
// the packages mlscore and mlscore/member; here is only what the interface asks
// beyond them: numbers for groups and keys, and members by their identity.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"

	"leavebroker/mlscore/interop/mlsclient/pb"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "mlsclient:", err)
		os.Exit(1)
	}
}

// run serves until the context ends. It prints the address when it listens.
func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 || args[0] != "serve" {
		return errors.New("usage: mlsclient serve [--listen HOST:PORT]")
	}
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	address := flags.String("listen", "127.0.0.1:50001", "loopback address; port 0 takes a free one")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	listener, err := listen(*address)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "listening on", listener.Addr())
	s := newGRPCServer()
	defer context.AfterFunc(ctx, s.GracefulStop)()
	return s.Serve(listener)
}

// listen opens a TCP port on a loopback address, and on no other.
func listen(address string) (net.Listener, error) {
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, err
	}
	if !a.IP.IsLoopback() {
		return nil, fmt.Errorf("%q is no loopback address", address)
	}
	return net.ListenTCP("tcp", a)
}

func newGRPCServer() *grpc.Server {
	s := newServer()
	g := grpc.NewServer(grpc.UnaryInterceptor(s.intercept))
	pb.RegisterMLSClientServer(g, s)
	return g
}
