"""A run of VASP is read with its units and signs: eV, eV/Å, and stress in eV/Å³, positive in tension (VASP: kbar)."""

import numpy as np

from phystrain.data.read import read

STEP = """
 <calculation>
  <scstep>
   <energy><i name="e_fr_energy">{free}</i><i name="e_wo_entrp">0</i><i name="e_0_energy">{zero}</i></energy>
  </scstep>
  <structure>
   <crystal><varray name="basis"><v>4 0 0</v><v>0 5 0</v><v>0 0 6</v></varray></crystal>
   <varray name="positions"><v>0 0 0</v><v>{x} 0.5 0.5</v></varray>
  </structure>
  <varray name="forces"><v>0.1 0.2 {x}</v><v>-0.1 -0.2 -{x}</v></varray>
  <varray name="stress"><v>10 1 3</v><v>1 20 2</v><v>3 2 30</v></varray>
  <energy><i name="e_fr_energy">{free}</i><i name="e_wo_entrp">0</i><i name="e_0_energy">0</i></energy>
 </calculation>"""

HEAD = """<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <kpoints><varray name="kpointlist"><v>0 0 0</v></varray><varray name="weights"><v>1</v></varray></kpoints>
 <parameters><i name="ENMAX">400</i></parameters>
 <atominfo><array name="atoms"><set><rc><c>Si</c><c>1</c></rc><rc><c>O</c><c>2</c></rc></set></array></atominfo>
 <structure name="initialpos">
  <crystal><varray name="basis"><v>4 0 0</v><v>0 5 0</v><v>0 0 6</v></varray></crystal>
  <varray name="positions"><v>0 0 0</v><v>0.5 0.5 0.5</v></varray>
 </structure>"""


def test_every_step_of_a_vasprun_is_a_structure(tmp_path):
    steps = [(-10.0, -10.5, 0.25), (-11.0, -11.5, 0.5)]
    text = HEAD + "".join(STEP.format(free=free, zero=zero, x=x) for free, zero, x in steps) + "\n</modeling>\n"
    (tmp_path / "vasprun.xml").write_text(text)
    found = read(tmp_path / "vasprun.xml")
    structures = found.structures
    assert len(structures) == 2
    assert structures.elements == (8, 14)
    np.testing.assert_allclose(structures.energy, [-10.5, -11.5])
    np.testing.assert_allclose(structures.positions[3], [2.0, 2.5, 3.0])
    np.testing.assert_allclose(structures.forces[2], [0.1, 0.2, 0.5])
    kbar = np.array([[10, 1, 3], [1, 20, 2], [3, 2, 30]])
    np.testing.assert_allclose(structures.stress[1], -kbar / 1602.1766, rtol=1e-6)
    assert "2 of 2" in found.summary()
