/* Connects to a name and port and prints what comes first: with musl's resolver when it is linked with that. */
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int count, char **words)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    char said[64] = "";
    int error, connection;

    if (count != 3)
        return 2;
    if ((error = getaddrinfo(words[1], words[2], &hints, &found))) {
        puts(gai_strerror(error));
        return 1;
    }
    connection = socket(found->ai_family, SOCK_STREAM, 0);
    if (connect(connection, found->ai_addr, found->ai_addrlen) || read(connection, said, sizeof said - 1) <= 0) {
        perror("connect");
        return 1;
    }
    fputs(said, stdout);
    return 0;
}
