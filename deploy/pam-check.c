/* Checks one user's password through PAM, for a display whose process is not root (teleport/vrde/pam_login.py).
 *
 *   printf 'SERVICE\0USER\0PASSWORD\0' | teleport-pam-check      0: right; 1: wrong (PAM's reason on stderr); 2: misused
 *
 * Installed setgid shadow (deploy/set-up --pam-helper), which is enough to read the hashes: no root. Since PAM 1.7 (Debian 13)
 * pam_unix leaves them to its unix_chkpwd, which for an account other than its caller's goes back to the real group: so shadow is
 * made that one, too. It takes nothing from its arguments or environment; PAM's own delay after a failure holds for it, as for su.
 */
#include <security/pam_appl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *password;

static int answer(int count, const struct pam_message **messages, struct pam_response **responses, void *data)
{
    struct pam_response *all = calloc(count, sizeof *all);
    (void)data;
    if (all == NULL)
        return PAM_BUF_ERR;
    for (int i = 0; i < count; i++)
        if (messages[i]->msg_style == PAM_PROMPT_ECHO_OFF)
            all[i].resp = strdup(password);
    *responses = all;
    return PAM_SUCCESS;
}

int main(void)
{
    static char input[4096];
    char *fields[3], *at = input;
    size_t size = 0;
    ssize_t got;
    struct pam_conv conversation = {answer, NULL};
    pam_handle_t *handle = NULL;

    clearenv();
    while (size < sizeof input - 1 && (got = read(STDIN_FILENO, input + size, sizeof input - 1 - size)) > 0)
        size += got;
    for (int i = 0; i < 3; i++) {
        fields[i] = at;
        at = memchr(at, 0, input + size - at);
        if (at == NULL)
            return 2;
        at++;
    }
    if (strcmp(fields[0], "teleport") != 0 && strcmp(fields[0], "login") != 0)
        return 2; /* other services may ask for less than a password */
    if (fields[1][0] == 0)
        return 2;
    if (setregid(getegid(), getegid()) != 0)
        return 2;
    password = fields[2];
    int result = pam_start(fields[0], fields[1], &conversation, &handle);
    if (result == PAM_SUCCESS)
        result = pam_authenticate(handle, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK);
    if (result == PAM_SUCCESS)
        result = pam_acct_mgmt(handle, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK);
    if (result != PAM_SUCCESS)
        fprintf(stderr, "%s\n", pam_strerror(handle, result));
    if (handle != NULL)
        pam_end(handle, result);
    explicit_bzero(input, sizeof input);
    return result == PAM_SUCCESS ? 0 : 1;
}
