// Command app is what runs in the pods of the tests: nothing at all ("pause"), or a service that says its version at /alive and
// works at /work as its image's variables say, and slowly once /slow was asked for. It prints when a work begins and ends, which may
// be later than it is answered; at /print the lines that it is asked for, and at /exit its last.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	if len(os.Args) > 1 && os.Args[1] == "pause" {
		<-stop
		return
	}
	if why := os.Getenv("APP_CRASH"); why != "" {
		fmt.Println(why)
		os.Exit(3)
	}
	// A duration; none works at once.
	stated, _ := time.ParseDuration(os.Getenv("APP_DELAY"))
	var delay atomic.Int64
	delay.Store(int64(stated))
	// The same, of what is still to be done once it is answered.
	after, _ := time.ParseDuration(os.Getenv("APP_AFTER"))
	var works atomic.Int64
	version := os.Getenv("APP_VERSION")
	http.HandleFunc("/alive", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, "alive %s\n", version) })
	http.HandleFunc("/work", func(w http.ResponseWriter, _ *http.Request) {
		work := works.Add(1)
		fmt.Printf("begin %d\n", work)
		time.Sleep(time.Duration(delay.Load()))
		said := fmt.Sprintf("done by %s\n", version)
		w.Header().Set("Content-Length", strconv.Itoa(len(said)))
		if after > 0 {
			// The next request of this connection would wait for the rest of this one.
			w.Header().Set("Connection", "close")
		}
		fmt.Fprint(w, said)
		w.(http.Flusher).Flush()
		time.Sleep(after)
		fmt.Printf("end %d\n", work)
	})
	http.HandleFunc("/print", func(_ http.ResponseWriter, r *http.Request) {
		from, _ := strconv.Atoi(r.FormValue("from"))
		to, _ := strconv.Atoi(r.FormValue("to"))
		for line := from; line <= to; line++ {
			fmt.Printf("line %d\n", line)
		}
	})
	http.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) {
		fmt.Println("the end")
		os.Exit(3)
	})
	http.HandleFunc("/slow", func(http.ResponseWriter, *http.Request) { delay.Store(int64(3 * time.Second)) })
	go func() { panic(http.ListenAndServe(":8080", nil)) }()
	<-stop
}
