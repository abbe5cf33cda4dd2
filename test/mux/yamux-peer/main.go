// One end of a yamux session by HashiCorp's own code, for the interop test.
//
//	yamux-peer echo            accepts streams and sends back what comes
//	yamux-peer send N BYTES    opens N streams, sends BYTES on each, compares what comes back
//
// Prints the port it listens on, then one line when it is done.
package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"

	"github.com/hashicorp/yamux"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	conn, err := listener.Accept()
	check(err)
	config := yamux.DefaultConfig()
	config.LogOutput = os.Stderr
	if os.Args[1] == "echo" {
		session, err := yamux.Server(conn, config)
		check(err)
		for {
			stream, err := session.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(stream, stream)
				_ = stream.Close()
			}()
		}
	}
	count, _ := strconv.Atoi(os.Args[2])
	size, _ := strconv.Atoi(os.Args[3])
	session, err := yamux.Client(conn, config)
	check(err)
	var group sync.WaitGroup
	for range count {
		group.Add(1)
		go func() {
			defer group.Done()
			sendAndCompare(session, size)
		}()
	}
	group.Wait()
	_, err = session.Ping()
	check(err)
	fmt.Println("same", session.NumStreams())
	check(session.GoAway())
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func sendAndCompare(session *yamux.Session, size int) {
	stream, err := session.Open()
	check(err)
	sent := make([]byte, size)
	_, _ = rand.Read(sent)
	go func() {
		_, err := stream.Write(sent)
		check(err)
		check(stream.Close())
	}()
	back, err := io.ReadAll(stream)
	check(err)
	if !bytes.Equal(sent, back) {
		fmt.Println("differs")
		os.Exit(1)
	}
}

func check(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}
