from hypothesis import given
from hypothesis import strategies as st

from teleport.preflight.proofs import NOT_SEEN, PROOF_FILE, Role, answer, commitment, judge

SECRET = bytes(range(32))


def test_who_read_the_secret_proves_it() -> None:
    right = answer(SECRET, answering=Role.TARGET, epoch="e", node="disk0")
    assert judge({"disk0": right}, {"disk0": right}) == {"disk0": ""}
    assert judge({"disk0": right}, {}) == {"disk0": NOT_SEEN}
    assert judge({"disk0": right}, {"disk0": "umlaut ü"}) == {"disk0": NOT_SEEN}


@given(st.binary(min_size=32, max_size=32), st.sampled_from(Role), st.text(max_size=8), st.text(max_size=8))
def test_an_answer_serves_one_secret_role_epoch_and_node(secret: bytes, role: Role, epoch: str, node: str) -> None:
    right = answer(secret, answering=role, epoch=epoch, node=node)
    assert right == answer(secret, answering=role, epoch=epoch, node=node)
    assert right != answer(secret, answering=role.other, epoch=epoch, node=node)
    assert right != answer(secret, answering=role, epoch=epoch + "x", node=node)
    assert right != answer(secret, answering=role, epoch=epoch, node=node + "x")
    assert right != answer(bytes(reversed(secret)) + b"x", answering=role, epoch=epoch, node=node)
    assert commitment(secret) not in (right, secret.hex())


def test_a_proof_files_name_cannot_lead_out_of_its_folder() -> None:
    assert PROOF_FILE.fullmatch(".proof-source-" + "a" * 24)
    for name in ("../x", ".proof-" + "a" * 16 + "/../../etc/passwd", "", ".proof-", "/etc/passwd", ".proof-" + "a" * 300):
        assert not PROOF_FILE.fullmatch(name)
