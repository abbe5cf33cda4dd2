// One end of a slow and lossy cable.
//
// Packets that the kernel routes into a TUN device of this namespace are held
// for the delay, a share of them is lost, and the rest goes to the other end by
// a Unix datagram socket, which namespaces do not part. The kernel's own netem
// does the same where it is built in; here it often is not.
//
// Where a rate is given, packets go out one behind another at that pace, as on
// a line of so many bytes a second.
//
// usage: slow-link DEVICE OWN_SOCKET PEER_SOCKET DELAY LOSS RATE (as in slow0 a.sock b.sock 300ms 0.05 0; 0: no pace)
package main

import (
	"fmt"
	"log"
	"math/rand"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

const (
	tunSetInterface = 0x400454ca // TUNSETIFF
	rawPackets      = 0x1001     // IFF_TUN | IFF_NO_PI
	largestPacket   = 65536
	// What a cheap modem holds; beyond it packets are lost, too.
	queueLength = 1000
)

type held struct {
	due    time.Time
	packet []byte
}

func main() {
	if len(os.Args) != 7 {
		log.Fatal("usage: slow-link DEVICE OWN_SOCKET PEER_SOCKET DELAY LOSS RATE")
	}
	delay, err := time.ParseDuration(os.Args[4])
	check(err)
	loss, err := strconv.ParseFloat(os.Args[5], 64)
	check(err)
	rate, err := strconv.ParseFloat(os.Args[6], 64)
	check(err)
	device, err := open(os.Args[1])
	check(err)
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: os.Args[2], Net: "unixgram"})
	check(err)

	queue := make(chan held, queueLength)
	go send(socket, os.Args[3], queue)
	go receive(socket, device)
	fmt.Println("ready")
	buffer := make([]byte, largestPacket)
	// When the line is free for the next packet.
	free := time.Now()
	for {
		length, err := device.Read(buffer)
		check(err)
		if rand.Float64() < loss || len(queue) == queueLength {
			continue
		}
		if now := time.Now(); free.Before(now) {
			free = now
		}
		if rate > 0 {
			free = free.Add(time.Duration(float64(length) / rate * float64(time.Second)))
		}
		queue <- held{free.Add(delay), append([]byte(nil), buffer[:length]...)}
	}
}

func send(socket *net.UnixConn, peer string, queue <-chan held) {
	address := &net.UnixAddr{Name: peer, Net: "unixgram"}
	for next := range queue {
		time.Sleep(time.Until(next.due))
		// The other end may not be there yet, or no more: a packet lost.
		_, _ = socket.WriteToUnix(next.packet, address)
	}
}

func receive(socket *net.UnixConn, device *os.File) {
	buffer := make([]byte, largestPacket)
	for {
		length, err := socket.Read(buffer)
		check(err)
		_, err = device.Write(buffer[:length])
		check(err)
	}
}

func open(name string) (*os.File, error) {
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var request [40]byte
	copy(request[:15], name)
	*(*uint16)(unsafe.Pointer(&request[16])) = rawPackets
	if _, _, failure := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), tunSetInterface, uintptr(unsafe.Pointer(&request[0]))); failure != 0 {
		return nil, failure
	}
	return os.NewFile(uintptr(fd), name), nil
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
